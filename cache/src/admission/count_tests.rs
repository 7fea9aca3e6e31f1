//! The sums, one by one, and random histories of them.

use proptest::prelude::*;

use super::*;

const GIB: u64 = 1024 * MIB;

fn count(budget_mib: u64) -> Count {
    Count::new(Some(MemoryBudget::of(budget_mib * MIB, 1.0)))
}

fn clones(count: &mut Count, template: &str, many: usize) -> Vec<VmId> {
    let ids: Vec<_> = (0..many).map(|_| VmId::random()).collect();
    for id in &ids {
        assert_eq!(count.admit_clone(template, id), Ok(()));
    }
    ids
}

fn text<T: std::fmt::Debug>(refused: Result<T, NoRoom>) -> String {
    refused.expect_err("it does not fit").to_string()
}

#[test]
fn a_file_counts_once_and_clones_count_as_they_were_measured() {
    let mut count = count(1000);
    count.hold_file("a", file_bytes(256));
    let ids = clones(&mut count, "a", 3);
    assert_eq!(count.total(), 257 * MIB + 3 * FIRST_ESTIMATE_BYTES);
    count.measured(ids.iter().cloned().zip([20 * MIB, 21 * MIB, 22 * MIB]));
    assert_eq!(count.total(), (257 + 63) * MIB);
    // The next one is taken for the largest of them; one of another template is not.
    let more = clones(&mut count, "a", 1);
    assert_eq!(count.total(), (257 + 63 + 22) * MIB);
    let other = clones(&mut count, "b", 1);
    assert_eq!(count.total(), (257 + 63 + 22) * MIB + FIRST_ESTIMATE_BYTES);
    for id in more.iter().chain(&other).chain(&ids) {
        count.forget_clone(id);
    }
    assert_eq!(count.total(), 257 * MIB);
}

#[test]
fn what_somebody_did_in_a_clone_is_not_expected_of_new_ones() {
    let mut count = count(10_000);
    let ids = clones(&mut count, "a", 2);
    count.lent(&ids[0]);
    count.measured([(ids[0].clone(), GIB), (ids[1].clone(), 20 * MIB)]);
    clones(&mut count, "a", 1);
    assert_eq!(count.total(), GIB + 40 * MIB);
    // Without any unused clone the last estimate holds, and a smaller one replaces a larger one.
    count.forget_clone(&ids[1]);
    count.measured([]);
    let last = clones(&mut count, "a", 1);
    count.measured([(last[0].clone(), 10 * MIB)]);
    clones(&mut count, "a", 1);
    assert_eq!(count.total(), GIB + (20 + 10 + 10) * MIB);
}

#[test]
fn what_does_not_fit_is_refused_with_the_sum_and_holds_nothing() {
    let mut count = count(360);
    count.hold_file("a", file_bytes(256));
    clones(&mut count, "a", 3);
    let id = VmId::random();
    assert_eq!(
        text(count.admit_clone("a", &id)),
        "memory: 1 template file 257 MiB + 3 clones 96 MiB + this clone 32 MiB > 360 MiB, \
         100 % of the host's 360 MiB"
    );
    assert_eq!(
        text(count.admit_build("b", file_bytes(64))),
        "memory: 1 template file 257 MiB + 3 clones 96 MiB + this build 257 MiB > 360 MiB, \
         100 % of the host's 360 MiB"
    );
    assert_eq!(count.total(), (257 + 96) * MIB);
    count.forget_clone(&id);
    assert_eq!(count.total(), (257 + 96) * MIB);
}

#[test]
fn a_build_holds_its_file_from_the_start_and_the_rest_until_it_ends() {
    let mut count = count(1000);
    let (file, build) = count.admit_build("a", file_bytes(256)).expect("it fits");
    assert_eq!(count.total(), 257 * MIB + BUILD_BYTES);
    assert!(
        text(count.admit_build("b", file_bytes(900)))
            .contains("1 template file 257 MiB + 1 build 192 MiB")
    );
    count.forget_build(build);
    assert_eq!(count.total(), 257 * MIB);
    count.forget_file(file);
    assert_eq!(count.total(), 0);
}

#[test]
fn what_is_plugged_in_counts_in_full_and_once() {
    let mut count = count(1000);
    let ids = clones(&mut count, "a", 2);
    count.measured([(ids[0].clone(), 20 * MIB), (ids[1].clone(), 20 * MIB)]);
    assert_eq!(count.admit_growth(&ids[0], 512 * MIB), Ok(()));
    assert_eq!(count.total(), (20 + 512 + 20) * MIB);
    // What the guest fills of it is counted already; what it has beyond that is not.
    count.measured([(ids[0].clone(), 500 * MIB)]);
    assert_eq!(count.total(), (20 + 512 + 20) * MIB);
    count.measured([(ids[0].clone(), 600 * MIB)]);
    assert_eq!(count.total(), (600 + 20) * MIB);
    assert_eq!(
        text(count.admit_growth(&ids[1], 512 * MIB)),
        "memory: 2 clones 620 MiB + what is plugged into it 512 MiB > 1000 MiB, \
         100 % of the host's 1000 MiB"
    );
    assert_eq!(count.total(), (600 + 20) * MIB);
    assert_eq!(
        count.admit_growth(&VmId::random(), GIB),
        Ok(()),
        "it is gone"
    );
}

#[test]
fn never_is_what_does_not_fit_beside_the_newest_files_alone() {
    let mut count = count(1000);
    count.hold_file("a", file_bytes(400));
    count.hold_file("a", file_bytes(255));
    count.hold_file("b", file_bytes(127));
    clones(&mut count, "b", 3);
    assert_eq!(
        count.may_ever_grow("a", (1000 - 256 - 128 - 32) * MIB),
        Ok(())
    );
    assert_eq!(
        text(count.may_ever_grow("a", 700 * MIB)),
        "memory: 2 template files 384 MiB + this clone 32 MiB + what is plugged into it 700 MiB > 1000 MiB, \
         100 % of the host's 1000 MiB"
    );
}

#[test]
fn a_target_must_fit_beside_what_the_other_pools_have() {
    let mut count = count(1000);
    count.hold_file("a", file_bytes(255));
    clones(&mut count, "a", 9);
    clones(&mut count, "b", 3);
    let fits = (1000 - 256 - 96) / 32;
    assert_eq!(count.may_keep("a", fits, &HashSet::new()), Ok(()));
    assert_eq!(
        text(count.may_keep("a", fits + 1, &HashSet::new())),
        "memory: 1 template file 256 MiB + 3 clones of other pools 96 MiB + 21 clones to keep 672 MiB > 1000 MiB, \
         100 % of the host's 1000 MiB"
    );
    let plans = [(255, 10), (127, 2)];
    assert_eq!(count.may_keep_all(plans.into_iter()), Ok(()));
    assert_eq!(
        text(count.may_keep_all([(255, 10), (127, 10)].into_iter())),
        "memory: 2 template files 384 MiB + 20 clones to keep 640 MiB > 1000 MiB, \
         100 % of the host's 1000 MiB"
    );
}

#[test]
fn the_crossing_of_the_budget_is_told_once_each_way() {
    let mut count = count(100);
    let ids = clones(&mut count, "a", 2);
    assert_eq!(count.crossing(), None);
    count.measured([(ids[0].clone(), 90 * MIB)]);
    assert!(matches!(count.crossing(), Some(Crossing::Over(_))));
    assert_eq!(count.crossing(), None);
    assert!(count.admit_clone("a", &VmId::random()).is_err());
    count.forget_clone(&ids[0]);
    assert_eq!(count.crossing(), Some(Crossing::Within));
    assert_eq!(count.crossing(), None);
}

#[test]
fn without_a_budget_everything_is_counted_and_nothing_refused() {
    let mut count = Count::new(None);
    count.hold_file("a", u64::MAX);
    assert_eq!(count.admit_clone("a", &VmId::random()), Ok(()));
    assert_eq!(count.total(), u64::MAX);
    assert_eq!(count.crossing(), None);
}

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Clone {
        template: usize,
    },
    Build {
        memory_mib: u64,
    },
    Measure {
        which: prop::sample::Index,
        mib: u64,
    },
    Grow {
        which: prop::sample::Index,
        mib: u64,
    },
    Free {
        which: prop::sample::Index,
    },
}

fn steps() -> impl Strategy<Value = Step> {
    let which = any::<prop::sample::Index>;
    prop_oneof![
        4 => (0_usize..3).prop_map(|template| Step::Clone { template }),
        1 => (1_u64..600).prop_map(|memory_mib| Step::Build { memory_mib }),
        2 => (which(), 1_u64..600).prop_map(|(which, mib)| Step::Grow { which, mib }),
        2 => which().prop_map(|which| Step::Free { which }),
    ]
}

/// The same, and clones that are measured: they may have more than was admitted.
fn steps_and_measures() -> impl Strategy<Value = Step> {
    let measured = (any::<prop::sample::Index>(), 1_u64..600);
    prop_oneof![
        4 => steps(),
        1 => measured.prop_map(|(which, mib)| Step::Measure { which, mib }),
    ]
}

enum Holding {
    Clone(VmId),
    File(Key),
    Build(Key),
}

fn free(count: &mut Count, held: &Holding) {
    match held {
        Holding::Clone(id) => count.forget_clone(id),
        Holding::File(key) => count.forget_file(*key),
        Holding::Build(key) => count.forget_build(*key),
    }
}

fn take(count: &mut Count, held: &mut Vec<Holding>, step: &Step) -> Result<(), NoRoom> {
    match step {
        Step::Clone { template } => {
            let id = VmId::random();
            count.admit_clone(["a", "b", "c"][*template], &id)?;
            held.push(Holding::Clone(id));
        }
        Step::Build { memory_mib } => {
            let (file, build) = count.admit_build("a", file_bytes(*memory_mib))?;
            held.extend([Holding::File(file), Holding::Build(build)]);
        }
        Step::Grow { which, mib } => {
            if !held.is_empty()
                && let Holding::Clone(id) = which.get(held)
            {
                count.admit_growth(id, mib * MIB)?;
            }
        }
        Step::Measure { which, mib } => {
            if !held.is_empty()
                && let Holding::Clone(id) = which.get(held)
            {
                count.measured([(id.clone(), mib * MIB)]);
            }
        }
        Step::Free { which } => {
            if !held.is_empty() {
                let gone = held.swap_remove(which.index(held.len()));
                free(count, &gone);
            }
        }
    }
    Ok(())
}

/// The sums of all clones, made from all of them at once.
fn summed(count: &Count) -> CloneSums {
    let mut sums = CloneSums::default();
    for held in count.clones.values() {
        sums.enter(held.addend());
    }
    sums
}

#[test]
fn a_sum_costs_the_same_with_many_clones() {
    const CLONES: usize = 50_000;
    let mut count = Count::new(None);
    let ids = clones(&mut count, "a", CLONES);
    let begun = std::time::Instant::now();
    for id in ids.iter().take(CLONES / 2) {
        // A launch, an end and a scrape.
        assert_eq!(count.may_clone("a"), Ok(()));
        count.forget_clone(id);
        assert_eq!(count.crossing(), None);
        assert!(count.total() > 0 && count.measured_sums().len() == 1);
    }
    // Looks at all of them would be more than a billion.
    let took = begun.elapsed();
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
}

proptest! {
    #[test]
    fn what_was_admitted_never_exceeds_the_budget_and_all_of_it_comes_back(
        budget_mib in 0_u64..3000,
        steps in prop::collection::vec(steps(), 0..100),
    ) {
        let (mut count, mut held) = (count(budget_mib), Vec::new());
        for step in &steps {
            let before = count.total();
            if take(&mut count, &mut held, step).is_err() {
                prop_assert_eq!(count.total(), before, "what was refused holds nothing");
            }
            prop_assert!(count.total() <= budget_mib * MIB, "{} of {budget_mib} MiB", count.total() / MIB);
        }
        held.iter().for_each(|held| free(&mut count, held));
        prop_assert_eq!(count.total(), 0);
    }

    #[test]
    fn the_sums_are_those_of_all_clones_files_and_builds(
        steps in prop::collection::vec(steps_and_measures(), 0..100),
    ) {
        let (mut count, mut held) = (count(3000), Vec::new());
        for step in &steps {
            // Refused or not.
            let _ = take(&mut count, &mut held, step);
            prop_assert_eq!(&count.clone_sums, &summed(&count));
            let files: Tally = count.files.values().map(|file| file.bytes).collect();
            let builds: Tally = count.builds.values().copied().collect();
            prop_assert_eq!((count.file_sum, count.build_sum), (files, builds));
        }
    }
}
