//! The configurations of the overlays in `k8s/`, which ConfigMaps are made of: what `millrace check --offline` says of them.

use std::{fs, path::Path};

use super::accepted;
use crate::check;

#[test]
fn the_configuration_of_every_overlay_is_accepted_without_a_problem() {
    let overlays = Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s/overlays");
    let mut count = 0;
    for overlay in fs::read_dir(&overlays).unwrap() {
        let path = overlay.unwrap().path().join("millrace.toml");
        let config = accepted(&fs::read_to_string(&path).unwrap());
        let report = check::offline(&config);
        assert_eq!(report.problems(), 0, "{}: {report}", path.display());
        count += 1;
    }
    assert!(count >= 3, "{count} overlays in {}", overlays.display());
}
