//! Versions: which rules hold at which height, what is read of a block of other rules, and which version
//! of the machine a program and its tasks keep.

mod common;

use proofmill_chain::check::{AttestationLeaf, Roots};
use proofmill_chain::codec;
use proofmill_chain::pipeline::BlockError;
use proofmill_chain::types::block::{header_version_under, version_of};
use proofmill_chain::types::genesis::GenesisError;
use proofmill_chain::types::hash::{Blob, Hash, Signature};
use proofmill_chain::types::params::Params;
use proofmill_chain::types::record::{Record, StateKey};
use proofmill_chain::types::task::{Attestation, SignedAttestation, Statement};
use proofmill_chain::types::transaction::Action;
use proofmill_chain::types::units::{Amount, Height, MachineVersion, ProtocolVersion};
use proofmill_chain::upgrades::{
    KnownVersion, RELEASED, Schedule, UnknownVersion, Upgrade, UpgradesError,
};

use self::common::{World, candidates, id, spec};

const V1: ProtocolVersion = ProtocolVersion::new(1);
const V2: ProtocolVersion = ProtocolVersion::new(2);
const V3: ProtocolVersion = ProtocolVersion::new(3);
/// What a program knows after a release whose rules differ in two parameters.
const NEXT: &[KnownVersion] = &[
    RELEASED[0],
    KnownVersion {
        version: V2,
        amend: |params| {
            params.base_fee = Amount::new(9);
            params.machine_version = MachineVersion::new(2);
        },
    },
];

fn upgrade(version: ProtocolVersion, height: u64) -> Upgrade {
    Upgrade {
        version,
        height: Height::new(height),
    }
}

fn schedule(upgrades: &[Upgrade], known: &[KnownVersion]) -> Result<Schedule, UpgradesError> {
    Schedule::new(&common::genesis(), upgrades, known)
}

/// Version and base fee of each height that is known, up to and including 12.
fn followed(schedule: &Schedule) -> Vec<(u32, u64)> {
    (1..=12)
        .map_while(|height| schedule.at(Height::new(height)).ok())
        .map(|rules| (rules.version().get(), rules.params().base_fee.get()))
        .collect()
}

#[test]
fn a_version_holds_from_its_height_on() {
    let schedule = schedule(&[upgrade(V2, 5)], NEXT).expect("a schedule");
    let mut expected = vec![(1, 8); 4];
    expected.extend([(2, 9); 8]);
    assert_eq!(followed(&schedule), expected);
    let rules = schedule.at(Height::new(5)).expect("known");
    assert_eq!(rules.params_hash(), rules.params().hash());
    let heights: Vec<_> = schedule.known_rules().map(|(from, _)| from.get()).collect();
    assert_eq!(heights, [0, 5]);
}

#[test]
fn a_chain_is_followed_up_to_the_version_that_is_not_known() {
    let error = |schedule: &Schedule, height| {
        schedule
            .at(Height::new(height))
            .expect_err("no rules are known")
    };
    let old = schedule(&[upgrade(V2, 5)], RELEASED).expect("a schedule");
    assert_eq!(followed(&old), vec![(1, 8); 4]);
    let expected = UnknownVersion {
        needed: V2,
        height: Height::new(5),
        known: vec![V1],
    };
    assert_eq!(error(&old, 5), expected);
    assert_eq!(error(&old, 1_000), expected);
    assert_eq!(
        expected.to_string(),
        "from height 5 on the chain needs protocol version 2, this program knows 1"
    );
    assert_eq!(old.known_at(Height::new(1_000)).version(), V1);
    // What follows an unknown version builds on it, whether it is known itself or not.
    let list = [upgrade(V2, 5), upgrade(V3, 9)];
    let gap = [
        RELEASED[0],
        KnownVersion {
            version: V3,
            amend: |_| {},
        },
    ];
    let gap = schedule(&list, &gap).expect("a schedule");
    assert_eq!(error(&gap, 9).needed, V2);
    let both = schedule(&list, NEXT).expect("a schedule");
    assert_eq!(error(&both, 9).needed, V3);
    assert_eq!(followed(&both).len(), 8);
}

#[test]
fn a_list_that_does_not_ascend_is_refused_with_both_entries() {
    for list in [
        vec![upgrade(V1, 5)],
        vec![upgrade(V2, 0)],
        vec![upgrade(V2, 5), upgrade(V3, 5)],
        vec![upgrade(V3, 5), upgrade(V2, 6)],
    ] {
        let error = schedule(&list, NEXT).expect_err("a refusal");
        assert!(matches!(error, UpgradesError::Order { .. }), "{error}");
    }
    let error = schedule(&[upgrade(V3, 5), upgrade(V2, 6)], NEXT).expect_err("a refusal");
    assert_eq!(
        error.to_string(),
        "upgrade to version 2 at height 6: versions and heights ascend, and before it is version 3, \
         since height 5"
    );
    let many: Vec<_> = (2..400)
        .map(|version| upgrade(ProtocolVersion::new(version), u64::from(version)))
        .collect();
    assert_eq!(
        schedule(&many, NEXT).expect_err("a refusal"),
        UpgradesError::TooMany(398)
    );
}

#[test]
fn a_version_that_makes_impossible_parameters_is_refused() {
    fn none(params: &mut Params) {
        params.block_transactions_max = 0;
    }
    let bad = [
        RELEASED[0],
        KnownVersion {
            version: V2,
            amend: none,
        },
    ];
    let error = schedule(&[upgrade(V2, 5)], &bad).expect_err("a refusal");
    let UpgradesError::Params { version, error } = error else {
        panic!("{error}");
    };
    assert_eq!(version, V2);
    assert!(matches!(error, GenesisError::Param { .. }), "{error}");
}

#[test]
fn the_list_has_a_hash_of_its_own_and_no_part_in_the_genesis_hash() {
    let lists = [
        vec![],
        vec![upgrade(V2, 5)],
        vec![upgrade(V2, 6)],
        vec![upgrade(V3, 5)],
        vec![upgrade(V2, 5), upgrade(V3, 9)],
    ];
    let hashes: std::collections::BTreeSet<_> = lists
        .iter()
        .map(|list| {
            let old = schedule(list, RELEASED).expect("a schedule").hash();
            let new = schedule(list, NEXT).expect("a schedule").hash();
            assert_eq!(old, new, "who knows what does not matter");
            old
        })
        .collect();
    assert_eq!(hashes.len(), lists.len());
}

#[test]
fn a_block_of_another_version_is_refused_before_anything_else_is_decoded() {
    let world = World::new();
    let block = world.forge(|_| {});
    let bytes = codec::encode(&block);
    assert_eq!(version_of(&bytes), Some(V1));
    assert_eq!(version_of(&codec::encode(&block.header)), Some(V1));
    assert_eq!(version_of(&bytes[..3]), None);
    let mut other = bytes;
    other[0] = 2;
    let mut junk = vec![0xff; 100];
    junk[..4].copy_from_slice(&other[..4]);
    let mut too_long = other.clone();
    too_long.resize(world.genesis.params.block_bytes_max as usize + 1, 0);
    for bytes in [&other, &junk, &too_long] {
        let error = common::both_ways(bytes, &world.context()).expect_err("a refusal");
        let expected = BlockError::Version {
            given: V2,
            expected: V1,
        };
        assert_eq!(error, expected);
        assert_eq!(
            error.to_string(),
            "the block has protocol version 2, its height has version 1"
        );
    }
}

#[test]
fn a_certified_hash_proves_the_version_of_the_header_under_it() {
    let world = World::new();
    let mut block = world.forge(|_| {});
    block.header.version = ProtocolVersion::new(7);
    let hash = block.header.hash();
    let bytes = codec::encode(&block);
    let read = |hash, bytes: &[u8]| header_version_under(hash, bytes);
    assert_eq!(read(&hash, &bytes), Some(ProtocolVersion::new(7)));
    // The header alone, and one with fields that this version does not have.
    let header = codec::encode(&block.header);
    assert_eq!(read(&hash, &header), Some(ProtocolVersion::new(7)));
    let longer = [&header[..], &[1; 500]].concat();
    let hash_of_longer = Hash::of("proofmill/header/v1", &[&longer]);
    let bytes_of_longer = [&longer[..], &bytes].concat();
    assert_eq!(
        read(&hash_of_longer, &bytes_of_longer),
        Some(ProtocolVersion::new(7))
    );
    // Bytes that nobody certified say nothing.
    let mut forged = bytes.clone();
    forged[0] = 8;
    assert_eq!(read(&hash, &forged), None);
    assert_eq!(read(&hash, &bytes[..header.len() - 1]), None);
    assert_eq!(read(&hash, &[]), None);
    let far = vec![1; 8 << 10];
    assert_eq!(
        read(&Hash::of("proofmill/header/v1", &[&far]), &far),
        None,
        "no header is that long"
    );
}

#[test]
fn blocks_change_their_version_and_parameters_at_the_height_of_the_upgrade() {
    let mut world = World::new();
    world.schedule = schedule(&[upgrade(V2, 3)], NEXT).expect("a schedule");
    for (height, version, base_fee) in [(1, V1, 8), (2, V1, 8), (3, V2, 9), (4, V2, 9)] {
        let step = world.advance(candidates(&[], &[]));
        let header = &step.sealed.block().header;
        assert_eq!(header.height, Height::new(height));
        assert_eq!(
            (header.version, header.base_fee),
            (version, Amount::new(base_fee))
        );
        let rules = world.schedule.at(header.height).expect("known");
        assert_eq!(header.params_hash, rules.params_hash());
    }
    // A proposer that stays with the old rules is refused by those who do not.
    let mut late = World::new();
    late.advance(candidates(&[], &[]));
    late.advance(candidates(&[], &[]));
    let block = late.forge(|_| {});
    late.schedule = schedule(&[upgrade(V2, 3)], NEXT).expect("a schedule");
    let error = late.validate(&block).expect_err("a refusal");
    assert_eq!(
        error,
        BlockError::Version {
            given: V1,
            expected: V2
        }
    );
}

#[test]
fn a_program_keeps_its_machine_and_a_task_the_one_of_its_program() {
    let (mut world, order) = World::with_program(|_| {});
    let first = order.program;
    let next = world.height.next();
    world.schedule = schedule(&[upgrade(V2, next.get())], NEXT).expect("a schedule");
    let module = Blob::new(b"PM\x01\x02 of the second machine".to_vec());
    let second = module.hash();
    world.does("carol", Action::PublishProgram { module });
    for (program, version) in [(first, 1), (second, 2)] {
        let record = world.record(StateKey::Program(program));
        let Some(Record::Program(record)) = record else {
            panic!("{record:?} is no program");
        };
        assert_eq!(record.machine_version, MachineVersion::new(version));
        let task = world.order(&spec(program));
        let task = world.task(task);
        assert_eq!(task.machine_version, MachineVersion::new(version));
    }
}

#[test]
fn an_attestation_and_an_output_of_the_same_bytes_have_different_roots() {
    let world = World::new();
    let mut attestation = SignedAttestation {
        attestation: Attestation {
            task: Hash::ZERO,
            draw: 0,
            worker: id("worker-0"),
            statement: Statement::Commit {
                commitment: Hash::of("commitment", &[]),
            },
        },
        signature: Signature::new([7; 64]),
    };
    // A task id whose first bytes are the length of what follows them makes the attestation's encoding
    // that of an output.
    let rest = codec::encode(&attestation).len() as u64 - 8;
    let mut task = [5; 32];
    task[..8].copy_from_slice(&rest.to_le_bytes());
    attestation.attestation.task = Hash::new(task);
    let bytes = codec::encode(&attestation);
    let output = Blob::new(bytes[8..].to_vec());
    assert_eq!(codec::encode(&output), bytes);

    let mut attested = world.forge(|_| {});
    let mut carried = attested.clone();
    attested.attestations = vec![attestation];
    carried.outputs = vec![output.clone()];
    assert_ne!(
        Roots::of(&attested).attestations,
        Roots::of(&carried).attestations
    );
    let leaves = [
        AttestationLeaf::Attestation(&attestation),
        AttestationLeaf::Output(&output),
    ];
    let [one, other] = leaves.map(|leaf| codec::encode(&leaf));
    assert_eq!((&one[..4], &other[..4]), (&[0; 4][..], &[1, 0, 0, 0][..]));
    assert_eq!(one[4..], other[4..]);
}

#[test]
fn a_worker_of_genesis_keeps_the_rules_of_a_registration() {
    for (change, words) in [
        (
            (|tags: &mut Vec<String>| *tags = vec!["gpu".into(), "cpu".into()])
                as fn(&mut Vec<String>),
            "sorted, each tag once",
        ),
        (|tags| *tags = vec!["CPU".into()], "lower-case letters"),
        (
            |tags| *tags = (0..17).map(|tag| format!("t{tag:02}")).collect(),
            "at most 16 tags",
        ),
    ] {
        let mut genesis = common::genesis();
        change(&mut genesis.workers[0].terms.tags);
        let error = genesis.state().expect_err("a refusal");
        let GenesisError::WorkerTerms { worker, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(*worker, genesis.workers[0].id);
        assert!(error.to_string().contains(words), "{error}");
    }
    let mut genesis = common::genesis();
    genesis.workers[0].terms.memory_pages_max = 0;
    let error = genesis.state().expect_err("a refusal").to_string();
    assert!(error.contains("memory_pages_max: at least 1"), "{error}");
}
