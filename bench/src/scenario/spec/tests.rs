use super::*;

const DRAIN: &str = r#"
    description = "d"
    kind = "drain"
    runs = 3
    [[goals]]
    text = "fast"
    metric = "events_per_second"
    of = "a"
    compare = ">="
    value = 1
    [parameters]
    check = "full"
    load = { events = 10, partitions = 4, duplicates = 0.05, poison = 0.0, compression = "none" }
    [[parameters.variants]]
    name = "a"
    system = "millrace"
    poison = 0.2
    [parameters.variants.config."topics.batch"]
    max_rows = 7
"#;

#[test]
fn every_committed_scenario_can_be_read_and_has_a_goal() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let all = Scenario::read_all(&folder).unwrap();
    assert!(!all.is_empty());
    for scenario in all {
        assert!(!scenario.goals.is_empty(), "{}", scenario.name);
        scenario.quick().check().unwrap();
    }
}

#[test]
fn a_variant_changes_the_common_load_only_where_it_says_so() {
    let Kind::Drain(drain) = Scenario::parse("s", DRAIN).unwrap().kind else { panic!() };
    let load = drain.variants[0].load(&drain.load);
    assert_eq!((load.events, load.shape.duplicates, load.shape.poison), (10, 0.05, 0.2));
    assert_eq!(drain.variants[0].config["topics.batch"]["max_rows"].as_integer(), Some(7));
}

#[test]
fn what_nobody_would_read_is_refused() {
    for (from, to) in [
        ("runs = 3", "runs = 3\nrun = 3"),
        ("check = \"full\"", "check = \"full\"\nseconds = 3"),
        ("poison = 0.2", "poisson = 0.2"),
        ("compression = \"none\"", "compression = \"none\", linger = 3"),
        ("of = \"a\"", "of = \"b\""),
        ("runs = 3", "runs = 0"),
        ("kind = \"drain\"", "kind = \"drip\""),
        ("compare = \">=\"", "compare = \"==\""),
    ] {
        assert!(DRAIN.contains(from));
        assert!(Scenario::parse("s", &DRAIN.replacen(from, to, 1)).is_err(), "{to}");
    }
}
