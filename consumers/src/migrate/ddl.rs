//! Reads the shipped `CREATE TABLE` statements: columns, indexes and clauses, each as it is written. It understands no
//! more SQL than these statements use, and a test reads all of them.

/// One `CREATE TABLE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ddl {
    pub(super) table: String,
    pub(super) columns: Vec<ColumnDdl>,
    /// (name, definition with the name).
    pub(super) indexes: Vec<(String, String)>,
    pub(super) engine: String,
    pub(super) partition_by: String,
    pub(super) order_by: String,
    pub(super) deduplication_window: u64,
    /// The statement from behind the table's name on, as it is written.
    pub(super) body: String,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ColumnDdl {
    pub(super) name: String,
    pub(super) type_: String,
    /// `DEFAULT` or empty.
    pub(super) default_kind: String,
    /// Everything after the name.
    pub(super) definition: String,
}

const CREATE: &str = "CREATE TABLE IF NOT EXISTS ";
/// Words that end a column's type.
const AFTER_TYPE: &[&str] = &["DEFAULT", "MATERIALIZED", "ALIAS", "EPHEMERAL", "COMMENT", "CODEC", "TTL"];
/// Words that begin a clause after the columns; some are followed by `BY`.
const CLAUSES: &[&str] = &["ENGINE", "PARTITION", "ORDER", "PRIMARY", "SAMPLE", "TTL", "SETTINGS", "COMMENT"];
const WINDOW: &str = "non_replicated_deduplication_window";

impl Ddl {
    /// Reads a statement; `None` if it is not a `CREATE TABLE` of the known form.
    pub(super) fn parse(written: &str) -> Option<Self> {
        let sql = one_line(written);
        let (table, body) = sql.strip_prefix(CREATE)?.split_once(' ')?;
        let (_, after_create) = written.split_once(CREATE)?;
        let mut parts = split(body, ' ').into_iter();
        let items = parts.next()?.strip_prefix('(')?.strip_suffix(')')?.to_owned();
        let (mut columns, mut indexes) = (Vec::new(), Vec::new());
        for item in split(&items, ',') {
            match item.strip_prefix("INDEX ") {
                Some(index) => indexes.push((index.split(' ').next()?.to_owned(), index.to_owned())),
                None => columns.push(ColumnDdl::parse(&item)?),
            }
        }
        let words: Vec<String> = parts.collect();
        let setting = split(&clause(&words, "SETTINGS"), ',').into_iter().find_map(|setting| {
            let (name, value) = setting.split_once('=')?;
            (name.trim() == WINDOW).then(|| value.trim().parse().ok())?
        });
        Some(Self {
            table: unquoted(table),
            columns,
            indexes,
            engine: clause(&words, "ENGINE"),
            partition_by: clause(&words, "PARTITION"),
            order_by: clause(&words, "ORDER"),
            deduplication_window: setting.unwrap_or(0),
            body: after_create.strip_prefix(table)?.trim_end().trim_end_matches(';').to_owned(),
        })
    }
}

/// The columns that a view's statement names.
#[cfg(test)]
pub(super) fn columns_of(written: &str) -> Option<Vec<ColumnDdl>> {
    let sql = one_line(written);
    let items = split(sql.split_once("CREATE VIEW IF NOT EXISTS ")?.1, ' ').into_iter().nth(1)?;
    split(items.strip_prefix('(')?.strip_suffix(')')?, ',').iter().map(|item| ColumnDdl::parse(item)).collect()
}

impl ColumnDdl {
    fn parse(item: &str) -> Option<Self> {
        let (name, definition) = item.split_once(' ')?;
        let words = split(definition, ' ');
        let type_: Vec<String> = words.iter().take_while(|word| !begins(word, AFTER_TYPE)).cloned().collect();
        let default = words.iter().find(|word| ["DEFAULT", "MATERIALIZED", "ALIAS"].contains(&word.as_str()));
        Some(Self {
            name: unquoted(name),
            type_: type_.join(" "),
            default_kind: default.cloned().unwrap_or_default(),
            definition: definition.to_owned(),
        })
    }
}

/// Whether two expressions or types are the same but for spaces, quotes around names, and one pair of parentheses.
pub(super) fn same(left: &str, right: &str) -> bool {
    let plain = |text: &str| {
        let text: String = text.chars().filter(|c| !c.is_whitespace() && *c != '`').collect();
        match text.strip_prefix('(').and_then(|text| text.strip_suffix(')')) {
            // Not `(a)+(b)`: what is inside must be whole.
            Some(inner) if balanced(inner) => inner.to_owned(),
            _ => text,
        }
    };
    plain(left) == plain(right)
}

fn balanced(text: &str) -> bool {
    let mut depth = 0i32;
    text.chars().all(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth >= 0
    })
}

fn begins(word: &str, words: &[&str]) -> bool {
    words.iter().any(|other| word == *other || word.strip_prefix(other).is_some_and(|rest| rest.starts_with('(')))
}

fn unquoted(name: &str) -> String {
    name.trim_matches('`').to_owned()
}

/// What follows a clause's name, up to the next clause.
fn clause(words: &[String], name: &str) -> String {
    let after = words.iter().skip_while(|word| *word != name).skip(1);
    let value = after.take_while(|word| !CLAUSES.contains(&word.as_str())).map(String::as_str);
    value.filter(|word| *word != "BY" && *word != "=" || name == "SETTINGS").collect::<Vec<_>>().join(" ")
}

/// The statement without comments and line breaks, each run of white space one space.
fn one_line(sql: &str) -> String {
    let mut text = String::with_capacity(sql.len());
    let mut quote = None;
    let mut chars = sql.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '`' | '"') => quote = Some(c),
            (None, '-') if chars.peek() == Some(&'-') => {
                while chars.next().is_some_and(|c| c != '\n') {}
                text.push(' ');
                continue;
            }
            (None, c) if c.is_whitespace() => {
                text.push(' ');
                continue;
            }
            _ => {}
        }
        text.push(c);
    }
    let mut line = String::with_capacity(text.len());
    for part in quoted_parts(&text) {
        match part {
            Part::Quoted(part) => line.push_str(part),
            Part::Plain(part) => {
                for c in part.chars() {
                    let after_space = line.ends_with([' ', '(']) || line.is_empty();
                    if !(c == ' ' && after_space) {
                        if c == ')' && line.ends_with(' ') {
                            line.pop();
                        }
                        line.push(c);
                    }
                }
            }
        }
    }
    line.trim().trim_end_matches(';').trim().to_owned()
}

enum Part<'a> {
    Plain(&'a str),
    Quoted(&'a str),
}

fn quoted_parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find(['\'', '`', '"']) {
        parts.push(Part::Plain(&rest[..open]));
        let quote = rest[open..].chars().next().unwrap_or('\'');
        let close = rest[open + 1..].find(quote).map_or(rest.len(), |at| open + at + 2);
        parts.push(Part::Quoted(&rest[open..close]));
        rest = &rest[close..];
    }
    parts.push(Part::Plain(rest));
    parts
}

/// Splits where the separator stands outside quotes and parentheses.
fn split(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0u32;
    for part in quoted_parts(text) {
        let plain = match part {
            Part::Quoted(quoted) => {
                parts.last_mut().into_iter().for_each(|last| last.push_str(quoted));
                continue;
            }
            Part::Plain(plain) => plain,
        };
        for c in plain.chars() {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if c == separator && depth == 0 {
                parts.push(String::new());
            } else if let Some(last) = parts.last_mut() {
                last.push(c);
            }
        }
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use millrace_schemas::CLICKHOUSE_DDL;

    use super::*;

    #[test]
    fn every_shipped_statement_is_understood() {
        for (name, sql) in CLICKHOUSE_DDL.iter().filter(|(_, sql)| sql.contains("\nCREATE TABLE ")) {
            let ddl = Ddl::parse(sql).unwrap_or_else(|| panic!("{name} is not understood"));
            assert!(ddl.engine.ends_with("MergeTree") && !ddl.order_by.is_empty(), "{ddl:#?}");
            for column in &ddl.columns {
                assert!(column.definition.starts_with(&column.type_) && !column.type_.is_empty(), "{column:?}");
                assert!(!column.type_.contains("COMMENT") && !column.type_.contains("CODEC"), "{column:?}");
            }
        }
        let orders = Ddl::parse(CLICKHOUSE_DDL[0].1).unwrap();
        assert_eq!(orders.table, "orders");
        assert_eq!(orders.columns.len(), 22);
        assert_eq!(orders.columns[11].name, "items.sku");
        assert_eq!(orders.columns[6].type_, "Decimal(18, 2)");
        assert_eq!(orders.columns[21].default_kind, "DEFAULT");
        assert_eq!(orders.indexes[0].0, "ingested_at_minmax");
        assert_eq!(orders.partition_by, "toYYYYMM(timestamp)");
        assert_eq!(orders.order_by, "(toStartOfHour(timestamp), event_type, timestamp)");
        assert_eq!(orders.deduplication_window, 10_000);
    }

    #[test]
    fn comments_and_commas_in_quotes_and_parentheses_split_nothing() {
        let sql = "-- a, comment (\nCREATE TABLE IF NOT EXISTS t\n(\n  a String COMMENT 'one, -- (two)' CODEC(LZ4), -- x\n  `b.c` Array( Decimal(18, 2) ) DEFAULT [],\n  INDEX i a TYPE minmax GRANULARITY 1\n)\nENGINE = MergeTree ORDER BY (a)";
        let ddl = Ddl::parse(sql).unwrap();
        assert_eq!(ddl.columns[0].definition, "String COMMENT 'one, -- (two)' CODEC(LZ4)");
        assert_eq!((ddl.columns[1].name.as_str(), ddl.columns[1].default_kind.as_str()), ("b.c", "DEFAULT"));
        assert!(same(&ddl.columns[1].type_, "Array(Decimal(18, 2))"));
        assert_eq!(ddl.indexes, [("i".to_owned(), "i a TYPE minmax GRANULARITY 1".to_owned())]);
        assert_eq!((ddl.engine.as_str(), ddl.order_by.as_str()), ("MergeTree", "(a)"));
    }

    #[test]
    fn expressions_are_the_same_whatever_their_spaces() {
        assert!(same("(topic, partition)", "topic,partition"));
        assert!(same("Enum8('a' = 1)", "Enum8('a'=1)"));
        assert!(!same("(a) + (b)", "a) + (b"));
        assert!(!same("Int32", "Int64"));
    }
}
