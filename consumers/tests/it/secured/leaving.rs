//! Leaving has an end of its own, whatever a client of Kafka still waits for.

use std::{sync::atomic::Ordering, time::Duration};

use super::{
    Kafka,
    issuer::{Issuer, SECRET, Token},
};
use crate::small::Small;

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_that_falls_silent_does_not_hold_the_end_up() {
    let mut small = Small::new().await;
    let doors = small.world.stack.secured.clone();
    let issuer = Issuer::start(&doors, Token::living(4)).await;
    let sasl = Some(doors.with_tokens(&issuer, SECRET));
    let way = Kafka { at: &doors.kafka_sasl_tls, protocol: "sasl_ssl", tls: Some(doors.files("ca", None)), sasl };
    small.world.config = way.put_into(&small.world.config, &small.world);
    small.set("#drain_timeout = \"20s\"", "drain_timeout = \"1s\"");
    small.produce(0, 0..10).await;
    let mut running = small.run();
    small.until_rows(10, SOON, &running).await;

    issuer.silent.store(true, Ordering::Relaxed);
    // The broker ends connections whose token has expired: nobody can be told of the last commit, nor of leaving the group.
    running.until_logged("AllBrokersDown", SOON).await;
    let (_, took) = running.terminate().await;
    // 1 s to drain and 5 s to leave, on a machine that has other things to do.
    assert!(took < Duration::from_secs(20), "{took:?}\n{}", running.log());
    small.world.clean_up().await;
}
