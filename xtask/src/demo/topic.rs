//! The topics that the demo can show: their names are those of the generator's kinds, too.

/// A topic of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Topic {
    /// Order events
    Orders,
    /// Payments, a second topic by configuration only
    Payments,
}

impl Topic {
    /// Its name in Kafka, of its table, and of the kind of its events.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Payments => "payments",
        }
    }
}
