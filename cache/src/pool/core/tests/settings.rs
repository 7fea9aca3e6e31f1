//! Other settings while the pool works, and its end when its template is removed.

use std::time::Duration;

use super::world::{LIMITS, Truth, World};
use crate::pool::core::{CloneKey, EndReason, Event, Limits, Refusal};
use crate::request::OnEmpty;

const SECOND: Duration = Duration::from_secs(1);

fn reconfigure(world: &mut World, limits: Limits, renew: bool) {
    world.on(Event::Reconfigured { limits, renew });
}

#[test]
fn other_sizes_hold_at_once_and_touch_no_clone_that_is_wanted() {
    let mut world = World::filled(LIMITS);
    let before = world.ready();
    let limits = Limits {
        target: 3,
        ..LIMITS
    };
    reconfigure(&mut world, limits, false);
    world.settle();
    assert_eq!(world.core.limits(), &limits);
    assert_eq!((world.ready().len(), &world.ready()[..2]), (3, &before[..]));
    assert!(world.ends.is_empty());
}

#[test]
fn clones_made_otherwise_are_replaced_one_by_one_and_are_served_meanwhile() {
    let mut world = World::filled(LIMITS);
    reconfigure(&mut world, LIMITS, true);
    assert_eq!((world.ready().len(), world.launching().len()), (2, 2));
    world.checkout(OnEmpty::Fail);
    assert_eq!(world.granted.len(), 1, "an old one is better than none");
    world.launch_succeeds(CloneKey(2));
    assert_eq!(
        world.ends.get(&CloneKey(1)),
        None,
        "one more is wanted first"
    );
    world.settle();
    assert_eq!(world.ends.get(&CloneKey(1)), Some(&EndReason::OldSettings));
    assert_eq!((world.ready().len(), world.core.tally().stale), (2, 0));
}

#[test]
fn a_clone_that_was_being_made_is_replaced_too() {
    let mut world = World::new(LIMITS);
    world.publish();
    reconfigure(&mut world, LIMITS, true);
    let made_before = world.launching();
    world.settle();
    for clone in &made_before {
        assert_eq!(world.ends.get(clone), Some(&EndReason::OldSettings));
    }
    assert_eq!(world.ready().len(), 2);
}

#[test]
fn a_clone_that_was_made_to_stand_still_is_never_asked_for_a_sign_of_life() {
    let pinged = Limits {
        asks_ready: true,
        max: 2,
        ..LIMITS
    };
    let mut world = World::filled(LIMITS);
    // No replacement succeeds: what was there stays, made as before.
    reconfigure(&mut world, pinged, true);
    world.checkout(OnEmpty::Wait);
    let clone = world.granted[0].1;
    world.clones.insert(clone, Truth::Proved);
    world.on(Event::Returned { clone });
    world.now += 60 * SECOND;
    world.on(Event::Tick);
    assert!(world.pings.is_empty() && !world.ready().is_empty());
}

#[test]
fn a_shorter_age_holds_for_clones_that_are_there() {
    let mut world = World::filled(LIMITS);
    let before = world.ready();
    let limits = Limits {
        max_age: Some(60 * SECOND),
        ..LIMITS
    };
    reconfigure(&mut world, limits, false);
    world.pass(61 * SECOND);
    world.settle();
    for clone in before {
        assert_eq!(world.ends.get(&clone), Some(&EndReason::TooOld));
    }
}

#[test]
fn a_withdrawn_pool_refuses_all_and_ends_with_its_last_lease() {
    let mut world = World::filled(Limits { max: 2, ..LIMITS });
    world.checkout(OnEmpty::Wait);
    world.checkout(OnEmpty::Wait);
    let waits = world.checkout(OnEmpty::Wait);
    let (left, back) = (world.granted[0].1, world.granted[1].1);
    world.on(Event::Withdrawn);
    assert_eq!(world.refused, [(waits, Refusal::Closed)]);
    let late = world.checkout(OnEmpty::Clone);
    assert_eq!(world.refused[1], (late, Refusal::Closed));

    world.clones.insert(back, Truth::Proved);
    world.on(Event::Returned { clone: back });
    assert_eq!(world.ends.get(&back), Some(&EndReason::Withdrawn));
    world.on(Event::Closed);
    world.settle();
    assert!(!world.core.is_finished() && world.launching().is_empty());
    world.on(Event::Renewed {
        clone: left,
        ttl: Some(5 * SECOND),
    });
    world.pass(6 * SECOND);
    assert_eq!(world.ends.get(&left), Some(&EndReason::Expired));
    world.settle();
    assert!(world.core.is_finished());
}
