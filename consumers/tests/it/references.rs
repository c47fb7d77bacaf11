//! Schemas that refer to those of other subjects, on the real registry.

use std::path::Path;

use millrace_consumers::{
    config::Config,
    registry::{Answer, Registry},
};
use millrace_pipeline::{
    decode::{DecodeLimits, Decoder},
    record::Record,
};
use serde_json::json;

use crate::world::{World, register, register_with};

const GEO: &str = r#"{"type":"record","name":"Geo","namespace":"place","fields":[{"name":"x","type":"double"}]}"#;
const ADDRESS: &str = r#"{"type":"record","name":"Address","namespace":"place","fields":[
    {"name":"city","type":"string"},{"name":"geo","type":["null","Geo"]}]}"#;
const EVENT: &str = r#"{"type":"record","name":"Event","namespace":"shop","fields":[
    {"name":"from","type":"place.Address"},{"name":"to","type":["null","place.Address"]},{"name":"n","type":"int"}]}"#;

#[tokio::test]
async fn a_schema_is_read_with_all_that_it_refers_to() {
    let world = World::new().await;
    let url = &world.stack.registry;
    let subject = |name: &str| format!("{}.{name}", world.database);
    let reference = |name: &str, of: &str| json!([{"name": name, "subject": subject(of), "version": 1}]);
    register(url, &subject("geo"), GEO).await;
    register_with(url, &subject("address"), ADDRESS, &reference("place.Geo", "geo")).await;
    let topic = subject("events");
    let id = register_with(url, &format!("{topic}-value"), EVENT, &reference("place.Address", "address")).await;

    let config = Config::load(Path::new(&world.write(&world.config))).unwrap();
    let registry = Registry::new(&config.registry).unwrap();
    let latest = registry.latest(&topic).await.unwrap();
    let Answer::Schema(by_id) = registry.by_id(id).await.unwrap() else { panic!("the registry has it") };
    assert_eq!(latest, by_id);

    let mut decoder = Decoder::new(&latest, DecodeLimits::default()).unwrap();
    decoder.learn(id, &by_id);
    let mut value = [&[0], &id.to_be_bytes()[..], &[4, b'h', b'i', 2]].concat();
    value.extend(1.5f64.to_le_bytes());
    value.extend([0, 14]);
    let decoded = decoder.decode(&[Record { partition: 0, offset: 0, timestamp_ms: 0, value: Some(&value) }]);
    assert_eq!(decoded.rejected, []);
    let row = format!("{:?}", decoded.rows.columns());
    assert!(row.contains("\"hi\"") && row.contains("1.5") && row.contains('7'), "{row}");
    world.clean_up().await;
}
