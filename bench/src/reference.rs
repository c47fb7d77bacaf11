//! Customers and products as functions of a seed and an index: what the compacted topics hold, and what the columns of
//! an enriched row must say. It never publishes.

use millrace_schemas::{Customer, Decimal2, Product};

use crate::random::Random;

/// Customers of a seed.
pub const CUSTOMERS: u32 = 100_000;
/// Products of a seed.
pub const PRODUCTS: u32 = 10_000;

const SEGMENTS: [&str; 5] = ["consumer", "consumer", "student", "business", "enterprise"];

/// Country, currency, cities.
pub const PLACES: [(&str, &str, [&str; 4]); 10] = [
    ("DE", "EUR", ["Berlin", "Hamburg", "München", "Köln"]),
    ("FR", "EUR", ["Paris", "Lyon", "Marseille", "Toulouse"]),
    ("GB", "GBP", ["London", "Manchester", "Bristol", "Leeds"]),
    ("US", "USD", ["New York", "Chicago", "Austin", "Seattle"]),
    ("SE", "SEK", ["Stockholm", "Göteborg", "Malmö", "Uppsala"]),
    ("PL", "PLN", ["Warszawa", "Kraków", "Wrocław", "Łódź"]),
    ("JP", "JPY", ["東京", "大阪", "横浜", "札幌"]),
    ("BR", "BRL", ["São Paulo", "Salvador", "Recife", "Curitiba"]),
    ("IN", "INR", ["Mumbai", "Delhi", "Chennai", "Pune"]),
    ("ES", "EUR", ["Madrid", "Barcelona", "Sevilla", "Valencia"]),
];

const CATEGORIES: [&str; 12] = [
    "books",
    "kitchen",
    "garden",
    "toys",
    "office",
    "clothing",
    "electronics",
    "sports",
    "music",
    "health",
    "grocery",
    "pets",
];

const BRANDS: [&str; 16] = [
    "Nordwind",
    "Acme",
    "Kestrel",
    "Solano",
    "Bluefin",
    "Hearth & Co",
    "Umbra",
    "Vela",
    "Tamarind",
    "Oakline",
    "Pixelworks",
    "Marble",
    "Juno",
    "Rambler",
    "Quill",
    "Ostara",
];

/// All customers and products of a seed, by index.
#[derive(Clone, Debug)]
pub struct Reference {
    /// By index.
    pub customers: Vec<Customer>,
    /// By index.
    pub products: Vec<Product>,
}

impl Reference {
    /// Makes them all: some 20 MB.
    pub fn new(seed: u64) -> Self {
        Self {
            customers: (0..CUSTOMERS).map(|index| customer(seed, index)).collect(),
            products: (0..PRODUCTS).map(|index| product(seed, index)).collect(),
        }
    }
}

fn customer(seed: u64, index: u32) -> Customer {
    let mut random = Random::new(seed ^ 0x6375_7374, index.into());
    Customer {
        customer_id: format!("customer-{index:08}"),
        segment: (*random.pick(&SEGMENTS)).into(),
        country: random.pick(&PLACES).0.into(),
        // 2015-01-01 and the eleven years after it, in days since 1970.
        signup_date: 16_436 + random.below(4_018) as i32,
    }
}

fn product(seed: u64, index: u32) -> Product {
    let mut random = Random::new(seed ^ 0x7072_6f64, index.into());
    let category = *random.pick(&CATEGORIES);
    // Prices span from cents to thousands, each power of ten as likely as the next.
    let ceiling = 10_i64.pow(2 + random.below(4) as u32);
    Product {
        sku: format!("sku-{category}-{index:05}"),
        category: category.into(),
        brand: (*random.pick(&BRANDS)).into(),
        list_price: Decimal2(1 + random.below(ceiling as u64) as i64),
    }
}
