//! Real engines over loopback with an application in memory: agreement, catching up, restarts,
//! invalid proposals, pacing and failures.

mod common;

use std::time::{Duration, Instant};

use common::{Network, PATIENCE, hash_of};
use proofmill_chain::types::units::{Height, Round};
use proofmill_consensus::EngineError;
use tokio::sync::watch;

const POWERS: [u64; 4] = [40, 30, 20, 10];
const ALL: [usize; 4] = [0, 1, 2, 3];
/// Three parts and a bit.
const PADDING: usize = 400_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weighted_validators_decide_the_same_blocks() {
    let mut network = Network::new(&POWERS, PADDING, |_, _| {});
    network.start_all().await;
    // Whoever committed height 13 had begun it.
    network.reach(&ALL, 13).await;
    network.assert_agreement(&ALL, 13);
    let status = network.engine(0).status();
    assert!(status.height > Height::new(12), "{status:?}");
    network.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validator_that_was_away_catches_up() {
    let mut network = Network::new(&POWERS, PADDING, |_, _| {});
    network.start_all().await;
    network.reach(&ALL, 3).await;
    network.stop(2).await;
    let away_at = network.apps[2].disk().blocks.len() as u64;
    network.reach(&[0, 1, 3], away_at + 6).await;
    network.start(2).await;
    network.reach(&[2], away_at + 6).await;
    // It takes part again, not only follows.
    let head = network.apps[0].disk().blocks.len() as u64;
    network.reach(&ALL, head + 3).await;
    network.assert_agreement(&ALL, head + 3);
    network.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_validators_restart_and_go_on_from_the_same_blocks() {
    let mut network = Network::new(&POWERS, 1000, |_, _| {});
    network.start_all().await;
    for pass in 1..=3 {
        let target = 4 * pass;
        network.reach(&ALL, target).await;
        let decided = hash_of(&network.apps[0].block(target).1);
        // One after the other: some are in the middle of a round that others have left.
        network.stop_all().await;
        network.start_all().await;
        network.reach(&ALL, target + 1).await;
        assert_eq!(hash_of(&network.apps[0].block(target).1), decided);
        network.assert_agreement(&ALL, target + 1);
    }
    network.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_called_invalid_cost_a_round_and_not_the_chain() {
    let bad = Network::new(&POWERS, 0, |_, _| {}).apps[2].me;
    let mut network = Network::new(&POWERS, 1000, |index, app| {
        app.refused = (index != 2).then_some(bad);
    });
    network.start_all().await;
    network.reach(&ALL, 15).await;
    network.assert_agreement(&ALL, 15);
    let app = &network.apps[0];
    assert!((1..=15).all(|height| app.proposer(height) != bad));
    let later = (1..=15).filter(|height| app.block(*height).0.round > Round::new(0));
    assert!(later.count() > 0, "the refused validator had its turns");
    network.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heights_wait_for_work_and_followers_do_not() {
    // The fifth machine has no power and never any work of its own.
    let mut network = Network::new(&[40, 30, 20, 10, 0], 1000, |_, app| {
        app.work = watch::Sender::new(Height::new(1));
    });
    for index in ALL {
        network.start(index).await;
        // The first height starts by itself, the others are due up to the fifth.
        network.apps[index].work.send_replace(Height::new(5));
    }
    network.reach(&ALL, 5).await;
    network.start(4).await;
    network.reach(&[4], 5).await;
    assert!(
        ALL.iter()
            .all(|i| network.apps[*i].disk().blocks.len() == 5)
    );
    for index in ALL {
        network.apps[index].work.send_replace(Height::new(9));
    }
    network.reach(&[0, 1, 2, 3, 4], 9).await;
    network.assert_agreement(&[0, 1, 2, 3, 4], 9);
    network.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_commit_stops_and_says_why() {
    let mut network = Network::new(&POWERS, 1000, |index, app| {
        let broken_at = (index == 3).then_some(Height::new(2));
        app.broken_at.send_replace(broken_at);
    });
    network.start_all().await;
    let stopped = tokio::time::timeout(PATIENCE, network.engine(3).stopped()).await;
    let reason = "height 2 cannot be committed: disk full".to_owned();
    assert_eq!(stopped.expect("it stops"), Err(EngineError::Fatal(reason)));
    network.reach(&[0, 1, 2], 5).await;
    assert_eq!(network.apps[3].disk().blocks.len(), 1);
    network.stop_all().await;
}

const TWO_HOURS_MS: i64 = 2 * 3_600_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validator_whose_clock_is_ahead_loses_its_turns_and_holds_nobody() {
    let mut network = Network::new(&POWERS, 1000, |_, _| {});
    network.apps[2].clock_skew_ms.send_replace(TWO_HOURS_MS);
    let ahead = network.apps[2].me;
    network.start_all().await;
    network.reach(&ALL, 15).await;
    network.assert_agreement(&ALL, 15);
    let app = &network.apps[0];
    assert!((1..=15).all(|height| app.proposer(height) != ahead));
    let later = (1..=15).filter(|height| app.block(*height).0.round > Round::new(0));
    assert!(later.count() > 0, "the validator had its turns");
    // Honest nodes hold blocks of two hours from now, and stop as ever.
    for index in ALL {
        let begun = Instant::now();
        network.stop(index).await;
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(5), "stopped after {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_is_behind_follows_and_votes_once_it_is_right() {
    let mut network = Network::new(&POWERS, 1000, |_, _| {});
    network.apps[3].clock_skew_ms.send_replace(-TWO_HOURS_MS);
    network.start_all().await;
    // The others' blocks are early for it until they are certified.
    network.reach(&ALL, 12).await;
    let ahead = network.clocks_ahead_ms(3, |ahead| ahead > 1_000).await;
    assert!((ahead - TWO_HOURS_MS).abs() < 1_000, "{ahead}");
    network.apps[3].clock_skew_ms.send_replace(0);
    network
        .clocks_ahead_ms(3, |ahead| ahead.abs() < 1_000)
        .await;
    // Without validator 1 the others need it: 40 + 20 of 100 decide nothing.
    network.stop(1).await;
    let head = network.apps[0].disk().blocks.len() as u64;
    network.reach(&[0, 2, 3], head + 4).await;
    network.assert_agreement(&[0, 2, 3], head + 4);
    network.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_disagrees_with_the_certified_chain_stops_and_says_so() {
    let best = Network::new(&POWERS, 0, |_, _| {}).apps[0].me;
    // The fifth machine follows, and refuses what the others decide.
    let mut network = Network::new(&[40, 30, 20, 10, 0], 1000, |index, app| {
        app.refused = (index == 4).then_some(best);
    });
    for index in ALL {
        network.start(index).await;
    }
    network.reach(&ALL, 5).await;
    network.start(4).await;
    let mut heard = network.apps[4].certified_invalid.subscribe();
    let heard = tokio::time::timeout(PATIENCE, heard.wait_for(Option::is_some)).await;
    let heard = heard.expect("in time").expect("the sender lives").clone();
    let (height, hash, bytes) = heard.expect("there is one");
    let (certificate, decided) = network.apps[0].block(height.get());
    assert_eq!((hash, &bytes[..]), (certificate.block, &decided[..]));
    assert_eq!(network.apps[0].proposer(height.get()), best);
    // It blames nobody and asks for no other block in its place.
    let stopped = tokio::time::timeout(PATIENCE, network.engine(4).stopped()).await;
    let reason = format!(
        "this node disagrees with the certified chain: block {hash} of height {height} has a certificate \
         and is invalid here: refused proposer"
    );
    assert_eq!(stopped.expect("it stops"), Err(EngineError::Fatal(reason)));
    network.stop_all().await;
}
