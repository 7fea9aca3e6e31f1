//! Random histories. After every step what must always hold is compared with what is true in the world; at the end the
//! world turns quiet, and the pool must be full, or gone.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;

use super::world::{Truth, World};
use crate::pool::core::{CloneKey, Drain, Epoch, Event, Limits, State, Ticket};
use crate::request::OnEmpty;

/// One step. An `Index` picks one of those to whom it can happen; a step that can happen to nobody is none.
#[derive(Clone, Debug)]
enum Step {
    Checkout {
        on_empty: OnEmpty,
        wait: Duration,
        ttl: Option<Duration>,
    },
    HangUp(Index),
    LaunchSucceeds(Index),
    LaunchFails {
        which: Index,
        damage: bool,
    },
    LaunchIsRefused(Index),
    RoomIsFreed,
    Dies(Index),
    Returned(Index),
    Spoiled(Index),
    Renewed(Index),
    Released(Index),
    EndIsDone(Index),
    Answers(Index),
    IsSilent(Index),
    IsStalled(Index),
    Publish,
    Discard,
    GoBack(Index),
    Drain(Drain),
    Resume(Drain),
    Resize {
        target: usize,
        more: usize,
    },
    Reconfigure {
        limits: Limits,
        renew: bool,
    },
    Pass(Duration),
}

fn steps() -> impl Strategy<Value = Step> {
    let on_empty =
        prop_oneof![3 => Just(OnEmpty::Wait), 2 => Just(OnEmpty::Clone), 1 => Just(OnEmpty::Fail)];
    let wait = (0_u64..20_000).prop_map(Duration::from_millis);
    let ttl = prop::option::of((1_u64..60_000).prop_map(Duration::from_millis));
    let which = any::<Index>;
    prop_oneof![
        6 => (on_empty, wait, ttl).prop_map(|(on_empty, wait, ttl)| Step::Checkout { on_empty, wait, ttl }),
        1 => which().prop_map(Step::HangUp),
        8 => which().prop_map(Step::LaunchSucceeds),
        2 => (which(), prop::bool::weighted(0.1)).prop_map(|(which, damage)| Step::LaunchFails { which, damage }),
        2 => which().prop_map(Step::LaunchIsRefused),
        1 => Just(Step::RoomIsFreed),
        1 => which().prop_map(Step::Dies),
        1 => which().prop_map(Step::Returned),
        1 => which().prop_map(Step::Spoiled),
        1 => which().prop_map(Step::Renewed),
        2 => which().prop_map(Step::Released),
        4 => which().prop_map(Step::EndIsDone),
        2 => which().prop_map(Step::Answers),
        1 => which().prop_map(Step::IsSilent),
        1 => which().prop_map(Step::IsStalled),
        2 => Just(Step::Publish),
        1 => Just(Step::Discard),
        1 => which().prop_map(Step::GoBack),
        1 => whose().prop_map(Step::Drain),
        2 => whose().prop_map(Step::Resume),
        1 => (0_usize..6, 0_usize..6).prop_map(|(target, more)| Step::Resize { target, more }),
        1 => (limits(), any::<bool>()).prop_map(|(limits, renew)| Step::Reconfigure { limits, renew }),
        4 => (0_u64..30_000).prop_map(|ms| Step::Pass(Duration::from_millis(ms))),
    ]
}

fn whose() -> impl Strategy<Value = Drain> {
    prop_oneof![Just(Drain::Pool), Just(Drain::Node)]
}

fn limits() -> impl Strategy<Value = Limits> {
    let ages = prop::option::of((20_u64..200).prop_map(Duration::from_secs));
    let timeouts = prop::option::of((1_u64..60).prop_map(Duration::from_secs));
    let asks = (any::<bool>(), timeouts);
    (0_usize..5, 0_usize..5, 1_usize..4, 0_usize..6, ages, asks).prop_map(
        |(target, more, refill, queue, max_age, (asks_ready, guest_timeout))| {
            let max = (target + more).max(1);
            Limits {
                target,
                max,
                refill,
                queue,
                max_age,
                asks_ready,
                guest_timeout,
                progress: Duration::from_secs(30),
            }
        },
    )
}

fn pick(which: &Index, from: &[CloneKey]) -> Option<CloneKey> {
    (!from.is_empty()).then(|| *which.get(from))
}

fn take(world: &mut World, step: &Step) {
    let leased = world.leased();
    match step {
        Step::Checkout {
            on_empty,
            wait,
            ttl,
        } => {
            world.checkout_for(*on_empty, *wait, *ttl);
        }
        Step::HangUp(which) => hang_up(world, which),
        Step::LaunchSucceeds(which) => {
            pick(which, &world.launching())
                .into_iter()
                .for_each(|clone| world.launch_succeeds(clone));
        }
        Step::LaunchFails { which, damage } => {
            pick(which, &world.launching())
                .into_iter()
                .for_each(|clone| world.launch_fails(clone, *damage));
        }
        Step::LaunchIsRefused(which) => {
            pick(which, &world.launching())
                .into_iter()
                .for_each(|clone| world.launch_is_refused(clone));
        }
        Step::RoomIsFreed => world.room_is_freed(),
        Step::Dies(which) => {
            let living = world
                .those(|truth| matches!(truth, Truth::Proved | Truth::Granted(_) | Truth::Ending));
            pick(which, &living)
                .into_iter()
                .for_each(|clone| world.dies(clone));
        }
        Step::Returned(which) => {
            if let Some(clone) = pick(which, &leased) {
                world.clones.insert(clone, Truth::Proved);
                world.on(Event::Returned { clone });
            }
        }
        Step::Spoiled(which) => tell(world, pick(which, &leased), |clone| Event::Spoiled {
            clone,
        }),
        Step::Renewed(which) => {
            tell(world, pick(which, &leased), |clone| Event::Renewed {
                clone,
                ttl: Some(Duration::from_secs(5)),
            });
        }
        Step::Released(which) => tell(world, pick(which, &leased), |clone| Event::Released {
            clone,
        }),
        Step::EndIsDone(which) => {
            let ending = world.those(|truth| truth == Truth::Ending);
            pick(which, &ending)
                .into_iter()
                .for_each(|clone| world.end_is_done(clone));
        }
        Step::Answers(which) => tell_asked(world, which, |clone| Event::Answered { clone }),
        Step::IsStalled(which) => {
            let ready = world.ready();
            tell(world, pick(which, &ready), |clone| Event::Stalled { clone });
        }
        Step::IsSilent(which) => tell_asked(world, which, |clone| Event::Silent { clone }),
        Step::Publish => {
            world.publish();
        }
        Step::Discard => drop(world.on(Event::Discarded)),
        Step::GoBack(which) => go_back(world, which),
        Step::Drain(whose) => drop(world.on(Event::Drain { whose: *whose })),
        Step::Resume(whose) => drop(world.on(Event::Resume { whose: *whose })),
        Step::Resize { target, more } => {
            world.on(Event::Resized {
                target: *target,
                max: target + more,
            });
        }
        Step::Reconfigure { limits, renew } => {
            world.on(Event::Reconfigured {
                limits: *limits,
                renew: *renew,
            });
        }
        Step::Pass(time) => world.pass(*time),
    }
}

fn go_back(world: &mut World, which: &Index) {
    let known: Vec<Epoch> = world.known().into_iter().collect();
    world.go_back_to(*which.get(&known));
}

fn hang_up(world: &mut World, which: &Index) {
    let waiting: Vec<Ticket> = world.waiting.keys().copied().collect();
    if !waiting.is_empty() {
        let ticket = *which.get(&waiting);
        world.waiting.remove(&ticket);
        world.on(Event::HungUp { ticket });
    }
}

fn tell(world: &mut World, clone: Option<CloneKey>, event: impl Fn(CloneKey) -> Event) {
    if let Some(clone) = clone {
        world.on(event(clone));
    }
}

fn tell_asked(world: &mut World, which: &Index, event: impl Fn(CloneKey) -> Event) {
    let asked: Vec<CloneKey> = world.pings.iter().copied().collect();
    let clone = pick(which, &asked);
    clone.into_iter().for_each(|clone| {
        world.pings.remove(&clone);
    });
    tell(world, clone, event);
}

/// What must hold after every step.
fn check(world: &World, alive_before: usize, in_flight_before: usize, waiting_before: usize) {
    let tally = world.core.tally();
    let max = world.core.limits().max;
    assert!(
        tally.alive() <= max.max(alive_before),
        "{tally:?} of at most {max}"
    );
    // Time that passes may begin a launch for somebody, and then end the wait.
    let wanting = world.waiting.len().max(waiting_before);
    let tried = usize::from(world.core.roll().is_some());
    let bound = world.core.limits().refill.max(1) + wanting + tried;
    assert!(
        tally.in_flight() <= bound.max(in_flight_before + tried),
        "{tally:?} with {wanting} waiting"
    );
    for (clone, truth) in &world.clones {
        let agrees = match (truth, world.core.clone_state(*clone)) {
            (Truth::Launching, Some(State::Launching))
            | (Truth::Proved, Some(State::Ready))
            | (Truth::Granted(_), Some(State::Leased { .. }))
            | (Truth::Ending, Some(State::Releasing))
            | (Truth::Gone, None) => true,
            (_, _) => false,
        };
        assert!(
            agrees,
            "{clone:?} is {truth:?}, but {:?} to the core",
            world.core.clone_state(*clone)
        );
    }
    check_roll(world);
    world.core.check_index();
    assert_eq!(tally.unresponsive, unresponsive(world));
    assert_eq!(world.core.waiters(), world.waiting.len());
    assert!(
        world.waiting.values().all(|deadline| *deadline > world.now),
        "a deadline passed unanswered"
    );
    assert!(
        tally.ready() == 0 || world.waiting.is_empty(),
        "somebody waits beside a ready clone"
    );
}

/// Its template is removed: what is unused ends, and the leases go on until they are released.
fn withdraw(world: &mut World) {
    let leased = world.leased();
    world.on(Event::Withdrawn);
    assert!(world.waiting.is_empty() && world.ready().is_empty());
    world.settle();
    assert_eq!(world.leased(), leased);
    assert_eq!(world.core.is_finished(), leased.is_empty());
    for clone in leased {
        world.on(Event::Released { clone });
    }
    world.settle();
}

/// Leased clones that were declared unresponsive, and not responsive since.
fn unresponsive(world: &World) -> usize {
    let leased = |clone: &&CloneKey| {
        let state = world.core.clone_state(**clone);
        matches!(state, Some(State::Leased { .. }))
    };
    world.unresponsive.iter().filter(leased).count()
}

/// What clones are made from is known, and what may be gone back to is kept.
fn check_roll(world: &World) {
    let Some(current) = world.core.epoch() else {
        return;
    };
    let known = world.known();
    assert!(known.contains(&current), "{current:?} is not known");
    for clone in world.launching() {
        assert!(known.contains(&world.epochs[&clone]));
    }
    if let Some(roll) = world.core.roll() {
        assert_eq!(roll.to, current);
        assert!(roll.from != roll.to && world.core.needs(roll.from) && known.contains(&roll.from));
        let of_it = world.of(roll.to, &world.launching());
        assert!(roll.progress_by.is_none() || !of_it.is_empty());
        assert!(
            roll.progress_by
                .is_none_or(|end| end.since_start() > world.now)
        );
    }
    if world.core.is_draining() {
        let tally = world.core.tally();
        let idle = tally.ready() + tally.in_flight() + world.waiting.len();
        assert_eq!(idle, 0, "{tally:?} while it drains");
    }
}

/// Nothing fails any more, and time passes.
fn turn_quiet(world: &mut World) {
    for whose in [Drain::Pool, Drain::Node] {
        world.on(Event::Resume { whose });
    }
    world.publish();
    for _ in 0..10 {
        world.settle();
        world.pass(Duration::from_secs(20));
        world.settle();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens(limits in limits(), steps in prop::collection::vec(steps(), 1..120), ends in any::<Option<(bool, bool)>>()) {
        let mut world = World::new(limits);
        world.publish();
        for step in &steps {
            let (before, waiting) = (world.core.tally(), world.waiting.len());
            take(&mut world, step);
            check(&world, before.alive(), before.in_flight(), waiting);
        }
        if let Some((is_stop, leave_leased)) = ends {
            if is_stop {
                world.on(Event::Stopped { leave_leased });
                world.settle();
            } else {
                withdraw(&mut world);
            }
            prop_assert!(world.core.is_finished(), "{:?}", world.core.tally());
            prop_assert!(world.waiting.is_empty());
        } else {
            turn_quiet(&mut world);
            let (tally, limits) = (world.core.tally(), *world.core.limits());
            prop_assert_eq!(tally.fresh, limits.target.min(limits.max.saturating_sub(tally.leased)), "{:?}", tally);
            prop_assert_eq!((tally.stale, tally.in_flight(), tally.releasing), (0, 0, 0));
            prop_assert_eq!(world.core.short_of_memory(), None);
            let is_full = limits.max - limits.max.min(tally.leased) < limits.target;
            prop_assert!(world.core.roll().is_none() || is_full, "{:?}", world.core.roll());
            prop_assert!(world.core.degraded().is_none() || tally.alive() >= limits.max, "{:?}", tally);
        }
    }
}
