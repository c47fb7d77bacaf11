//! Named queries: questions that are asked again and again, as SQL with parameters of ClickHouse.

macro_rules! queries {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../clickhouse/queries/", $name, ".sql")))),*]
    };
}

/// (name, text), by name. A text begins with comments: what it answers, a line `param name Type = default: meaning` for each
/// parameter, and an example of an answer. It names no database, has a bound, and ends without `FORMAT`.
pub const QUERIES: &[(&str, &str)] = queries![
    "customer_value",
    "dead_letters_by_reason",
    "freshness",
    "funnel",
    "ingest_per_minute",
    "order_current",
    "orders_by_status",
    "revenue_per_minute",
    "top_categories",
    "top_skus",
];

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_file_is_listed_and_each_says_what_it_answers() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/clickhouse/queries");
        let mut files: Vec<String> =
            fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        let listed: Vec<String> = QUERIES.iter().map(|(name, _)| format!("{name}.sql")).collect();
        assert_eq!(files, listed);
        for (name, text) in QUERIES {
            let (head, sql) = text.split_at(text.find("\nSELECT ").unwrap_or_else(|| panic!("{name} is no SELECT")));
            assert!(head.lines().all(|line| line.starts_with("--")) && head.contains("\n-- example\n"), "{name}");
            assert!(sql.contains("LIMIT ") && !sql.contains("FORMAT ") && !sql.contains(';'), "{name}");
            assert!(!sql.contains("--"), "{name}: comments come first");
            for param in head.lines().filter_map(|line| line.strip_prefix("-- param ")) {
                let (declared, _) = param.split_once(" = ").unwrap_or_else(|| panic!("{name}: {param} has no default"));
                let (param, type_) = declared.split_once(' ').unwrap_or_else(|| panic!("{name}: {param} has no type"));
                assert!(sql.contains(&format!("{{{param}:{type_}}}")), "{name} does not use {param}");
            }
            let declared = head.matches("\n-- param ").count();
            let mut used: Vec<&str> = sql.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect();
            used.sort_unstable();
            used.dedup();
            assert_eq!(used.len(), declared, "{name} uses {used:?}");
        }
    }
}
