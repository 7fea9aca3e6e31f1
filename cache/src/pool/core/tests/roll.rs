//! A pool on its way to a new generation, and back.

use std::time::Duration;

use super::world::{LIMITS, World};
use crate::pool::core::{CloneKey, EndReason, Epoch, Event, Limits, Moment};
use crate::request::OnEmpty;

const SECOND: Duration = Duration::from_secs(1);
const OLD: Epoch = Epoch(0);
const NEW: Epoch = Epoch(1);

/// A filled pool to which a new generation was published.
fn rolling(limits: Limits) -> World {
    let mut world = World::filled(limits);
    assert_eq!(world.publish(), NEW);
    world
}

fn launching_of(world: &World, epoch: Epoch) -> Vec<CloneKey> {
    world.of(epoch, &world.launching())
}

fn ready_of(world: &World, epoch: Epoch) -> usize {
    world.of(epoch, &world.ready()).len()
}

/// Lets the next clone of the new generation fail.
fn new_one_fails(world: &mut World, damage: bool) {
    while launching_of(world, NEW).is_empty() {
        world.pass(SECOND / 4);
    }
    let clone = launching_of(world, NEW)[0];
    world.launch_fails(clone, damage);
}

#[test]
fn the_first_clone_is_made_alone_and_each_joins_before_one_leaves() {
    let mut world = rolling(Limits {
        target: 4,
        max: 16,
        ..LIMITS
    });
    assert_eq!(world.notes, ["rolls 0 1"]);
    let mut seen = Vec::new();
    loop {
        let (old, new) = (ready_of(&world, OLD), ready_of(&world, NEW));
        seen.push((old, new, launching_of(&world, NEW).len()));
        let Some(clone) = world.launching().first().copied() else {
            break;
        };
        world.launch_succeeds(clone);
        assert!(world.ready().len() >= 4, "{seen:?}");
    }
    let one_by_one = [(4, 0, 1), (3, 1, 2), (2, 2, 2), (1, 3, 1), (0, 4, 0)];
    assert_eq!(seen, one_by_one);
    assert_eq!(world.notes[1..], ["rolled 1"]);
    assert!(world.core.roll().is_none() && !world.core.needs(OLD));
    assert!(
        world
            .ends
            .values()
            .all(|why| *why == EndReason::OldGeneration)
    );
}

#[test]
fn checkouts_get_new_clones_first_and_old_ones_without_a_wait() {
    let mut world = rolling(LIMITS);
    let new = launching_of(&world, NEW)[0];
    world.launch_succeeds(new);
    world.checkout(OnEmpty::Fail);
    world.checkout(OnEmpty::Fail);
    let got: Vec<_> = world.granted.iter().map(|(_, clone, _)| *clone).collect();
    assert_eq!(got[0], new);
    assert_eq!(world.epochs[&got[1]], OLD);
    assert!(world.refused.is_empty());
}

#[test]
fn while_the_new_one_is_doubted_the_refill_goes_on_from_the_one_before() {
    let mut world = rolling(LIMITS);
    let tried = launching_of(&world, NEW);
    assert_eq!(tried.len(), 1);
    for nth in 1..=20 {
        world.checkout(OnEmpty::Fail);
        let refill = launching_of(&world, OLD);
        assert_eq!(refill.len(), 1, "checkout {nth}");
        world.launch_succeeds(refill[0]);
        let leased = world.leased()[0];
        world.on(Event::Released { clone: leased });
        world.end_is_done(leased);
    }
    assert!(world.refused.is_empty());
    assert_eq!(
        launching_of(&world, NEW),
        tried,
        "one is enough to prove it"
    );
}

#[test]
fn three_failures_in_a_row_go_back_and_cost_nobody_anything() {
    let mut world = rolling(LIMITS);
    let old = world.ready();
    for _ in 0..3 {
        assert_eq!(world.ready(), old);
        new_one_fails(&mut world, false);
    }
    let back = "back from 1 to 0: 3 clones of it failed in a row, the last in phase load: no";
    assert_eq!(world.notes, ["rolls 0 1", back]);
    assert_eq!((world.core.epoch(), world.core.roll()), (Some(OLD), None));
    assert!(world.core.degraded().is_none() && !world.core.needs(NEW));
    world.checkout(OnEmpty::Fail);
    assert_eq!(launching_of(&world, OLD).len(), 1, "without a pause");
    world.settle();
    assert_eq!((ready_of(&world, OLD), world.ready().len()), (2, 2));
}

#[test]
fn a_failure_after_a_success_is_counted_anew_and_is_doubt() {
    let mut world = rolling(Limits {
        target: 4,
        max: 16,
        ..LIMITS
    });
    new_one_fails(&mut world, false);
    new_one_fails(&mut world, false);
    world.pass(SECOND);
    let clone = launching_of(&world, NEW)[0];
    world.launch_succeeds(clone);
    assert_eq!(launching_of(&world, NEW).len(), 2, "proven");
    new_one_fails(&mut world, false);
    new_one_fails(&mut world, false);
    assert!(world.core.roll().is_some());
    world.checkout(OnEmpty::Fail);
    assert_eq!(launching_of(&world, OLD).len(), 1, "doubted");
    new_one_fails(&mut world, false);
    assert!(world.core.roll().is_none());
    world.settle();
    assert_eq!(
        ready_of(&world, OLD),
        4,
        "the good ones of it are replaced, too"
    );
}

#[test]
fn damage_goes_back_at_once_and_has_nothing_rebuilt() {
    let mut world = rolling(LIMITS);
    new_one_fails(&mut world, true);
    assert_eq!(
        world.notes[1..],
        ["back from 1 to 0: it is damaged, found in phase load of a clone: no"]
    );
    assert_eq!(world.core.epoch(), Some(OLD));
}

#[test]
fn a_generation_that_makes_no_progress_is_given_up_with_its_launches() {
    let mut world = rolling(LIMITS);
    let hangs = launching_of(&world, NEW)[0];
    world.pass(59 * SECOND);
    assert!(world.core.roll().is_some());
    world.pass(SECOND);
    assert_eq!(
        world.notes[1..],
        ["back from 1 to 0: no clone of it became ready within 60 s"]
    );
    assert!(world.launching().is_empty(), "{hangs:?} is abandoned");
    assert_eq!(world.ready().len(), 2);
}

#[test]
fn every_ready_clone_is_progress() {
    let mut world = rolling(Limits {
        target: 3,
        refill: 1,
        ..LIMITS
    });
    for _ in 0..3 {
        world.pass(50 * SECOND);
        let clone = launching_of(&world, NEW)[0];
        world.launch_succeeds(clone);
    }
    assert_eq!(world.notes, ["rolls 0 1", "rolled 1"]);
}

#[test]
fn what_is_not_the_generations_fault_stops_the_clock() {
    // Leased clones reach `max`.
    let mut world = World::filled(Limits {
        target: 1,
        max: 2,
        ..LIMITS
    });
    world.checkout(OnEmpty::Fail);
    world.settle();
    world.checkout(OnEmpty::Fail);
    world.publish();
    world.pass(3_600 * SECOND);
    let roll = world.core.roll().expect("it waits");
    assert_eq!(roll.progress_by, None);
    let leased = world.leased()[0];
    world.on(Event::Released { clone: leased });
    world.end_is_done(leased);
    let roll = world.core.roll().expect("it goes on");
    let deadline = Moment::new(world.now + 60 * SECOND);
    assert_eq!(roll.progress_by, Some(deadline));
    world.settle();
    assert_eq!(world.notes, ["rolls 0 1", "rolled 1"]);
}

#[test]
fn a_busy_pool_uses_up_its_old_clones() {
    let mut world = rolling(LIMITS);
    for _ in 0..4 {
        let new = launching_of(&world, NEW)[0];
        world.launch_succeeds(new);
        world.checkout(OnEmpty::Fail);
        world.checkout(OnEmpty::Wait);
        if world.core.roll().is_none() {
            break;
        }
    }
    assert_eq!(world.notes[1..], ["rolled 1"]);
}

#[test]
fn where_max_leaves_no_room_one_at_a_time_makes_it() {
    let mut world = rolling(Limits {
        target: 3,
        max: 3,
        ..LIMITS
    });
    let mut fewest = 3;
    while let Some((clone, truth)) = world.under_way() {
        match truth {
            super::world::Truth::Launching => world.launch_succeeds(clone),
            _ => world.end_is_done(clone),
        }
        fewest = fewest.min(world.ready().len());
        assert!(world.core.tally().alive() <= 3);
    }
    assert_eq!(fewest, 2);
    assert_eq!(world.notes[1..], ["rolled 1"]);
}

#[test]
fn a_newer_generation_takes_the_place_of_one_that_has_proved_nothing() {
    let mut world = rolling(LIMITS);
    let abandoned = launching_of(&world, NEW)[0];
    world.publish();
    let roll = world.core.roll().expect("it rolls");
    assert_eq!((roll.from, roll.to), (OLD, Epoch(2)));
    assert!(!world.launching().contains(&abandoned) && !world.core.needs(NEW));
    for _ in 0..3 {
        while launching_of(&world, Epoch(2)).is_empty() {
            world.pass(SECOND / 4);
        }
        let clone = launching_of(&world, Epoch(2))[0];
        world.launch_fails(clone, false);
    }
    assert_eq!(world.core.epoch(), Some(OLD));
}

#[test]
fn one_that_has_proved_itself_is_gone_back_to() {
    let mut world = rolling(Limits {
        target: 4,
        ..LIMITS
    });
    let clone = launching_of(&world, NEW)[0];
    world.launch_succeeds(clone);
    world.publish();
    let roll = world.core.roll().expect("it rolls");
    assert_eq!((roll.from, roll.to), (NEW, Epoch(2)));
}

#[test]
fn a_pool_that_keeps_none_has_nothing_to_roll() {
    let world = rolling(Limits {
        target: 0,
        ..LIMITS
    });
    assert_eq!(world.notes, ["rolls 0 1", "rolled 1"]);
}

#[test]
fn a_damaged_generation_is_nothing_to_go_back_to() {
    let mut world = World::filled(LIMITS);
    world.checkout(OnEmpty::Wait);
    let clone = world.launching()[0];
    world.launch_fails(clone, true);
    world.publish();
    world.notes.clear();
    while launching_of(&world, NEW).is_empty() {
        world.pass(SECOND);
    }
    let clone = launching_of(&world, NEW)[0];
    world.launch_fails(clone, true);
    assert_eq!(world.notes[0], "rebuild 1", "{:?}", world.notes);
}

#[test]
fn damage_in_the_one_before_ends_the_doubt() {
    let mut world = rolling(LIMITS);
    world.checkout(OnEmpty::Wait);
    let clone = launching_of(&world, OLD)[0];
    world.launch_fails(clone, true);
    assert_eq!(world.notes, ["rolls 0 1"], "nobody needs it any more");
    world.settle();
    assert_eq!((ready_of(&world, NEW), world.ready().len()), (2, 2));
    assert_eq!(world.notes[1..], ["rolled 1"]);
}

#[test]
fn whoever_goes_back_by_hand_does_not_come_forth_again() {
    let mut world = rolling(LIMITS);
    world.settle();
    world.notes.clear();
    world.go_back_to(OLD);
    assert_eq!(world.notes, ["rolls 1 0"]);
    assert_eq!(launching_of(&world, OLD).len(), 2, "there is no doubt");
    for _ in 0..3 {
        while world.launching().is_empty() {
            world.pass(SECOND);
        }
        let clone = world.launching()[0];
        world.launch_fails(clone, false);
    }
    assert!(world.core.degraded().is_some());
    assert_eq!(world.core.epoch(), Some(OLD));
    world.pass(30 * SECOND);
    world.settle();
    assert_eq!(ready_of(&world, OLD), 2);
}

/// The same checkouts, every half second, against a pool that stays and one that gets a new generation, good or not.
#[test]
fn a_roll_refuses_nothing_that_would_not_have_been_refused() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum New {
        None,
        Good,
        Fails,
        Hangs,
    }
    let refused = |new: New, limits: Limits| {
        let mut world = World::filled(limits);
        let mut held = std::collections::VecDeque::new();
        for step in 0..400 {
            if step == 20 && new != New::None {
                world.publish();
            }
            world.checkout(OnEmpty::Fail);
            held.push_back(world.leased().last().copied());
            world.pass(SECOND / 2);
            for clone in world.launching() {
                match (world.epochs[&clone], new) {
                    (NEW, New::Hangs) => {}
                    (NEW, New::Fails) => world.launch_fails(clone, false),
                    _ => world.launch_succeeds(clone),
                }
            }
            if held.len() > 2
                && let Some(clone) = held.pop_front().flatten()
            {
                world.on(Event::Released { clone });
            }
            for clone in world.those(|truth| truth == super::world::Truth::Ending) {
                world.end_is_done(clone);
            }
        }
        assert!(world.core.roll().is_none(), "{new:?}: it comes to an end");
        world.refused.len()
    };
    for limits in [
        LIMITS,
        Limits {
            target: 1,
            refill: 1,
            ..LIMITS
        },
    ] {
        for new in [New::None, New::Good, New::Fails, New::Hangs] {
            assert_eq!(refused(new, limits), 0, "{new:?} with {limits:?}");
        }
    }
}
