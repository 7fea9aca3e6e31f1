//! A pool on a host whose memory is used up.

use std::time::Duration;

use super::world::{LIMITS, World};
use crate::pool::core::{CloneKey, EndReason, Event, Limits, Refusal};
use crate::request::OnEmpty;

const SECOND: Duration = Duration::from_secs(1);
/// More than there is memory for.
const FIVE: Limits = Limits {
    target: 5,
    refill: 1,
    ..LIMITS
};

/// A pool of five of which three fit.
fn three_of_five() -> World {
    let mut world = World::new(FIVE);
    world.publish();
    for _ in 0..3 {
        world.launch_succeeds(world.launching()[0]);
    }
    world.launch_is_refused(world.launching()[0]);
    world
}

#[test]
fn a_refused_launch_is_no_failure_and_is_tried_again_after_a_second() {
    let mut world = three_of_five();
    assert_eq!((world.ready().len(), world.launching().len()), (3, 0));
    assert_eq!(world.core.short_of_memory(), Some("1 + 1 > 1"));
    assert_eq!(
        (world.core.degraded(), world.core.pause()),
        (None, Duration::ZERO)
    );
    assert_eq!(world.notes, ["out of room: 1 + 1 > 1"]);
    for _ in 0..20 {
        world.pass(SECOND - Duration::from_millis(1));
        assert!(world.launching().is_empty());
        world.pass(Duration::from_millis(1));
        world.launch_is_refused(world.launching()[0]);
    }
    assert_eq!(world.notes.len(), 1, "the operator was told once");
    assert_eq!(world.core.degraded(), None);
}

#[test]
fn it_is_as_full_as_it_can_be() {
    let mut world = three_of_five();
    assert!(world.core.was_filled());
    // With nothing at all it is not.
    world = World::new(FIVE);
    world.publish();
    world.launch_is_refused(CloneKey(0));
    assert!(!world.core.was_filled());
}

#[test]
fn memory_that_is_freed_is_used_at_once() {
    let mut world = three_of_five();
    world.room_is_freed();
    world.launch_succeeds(world.launching()[0]);
    assert_eq!(world.core.short_of_memory(), None);
    assert_eq!(world.launching().len(), 1, "the fifth is tried as well");
    world.launch_is_refused(world.launching()[0]);
    assert!(world.core.short_of_memory().is_some());
    assert_eq!(world.notes.len(), 1, "it is the same shortage");
    world.room_is_freed();
    world.settle();
    assert_eq!(world.notes.last().map(String::as_str), Some("room again"));
    // Without a shortage it changes nothing.
    let effects = world.on(Event::RoomFreed);
    assert!(effects.is_empty(), "{effects:?}");
}

#[test]
fn one_that_was_begun_before_the_refusal_proves_nothing() {
    let mut world = World::new(Limits { refill: 2, ..FIVE });
    world.publish();
    world.launch_is_refused(CloneKey(1));
    world.launch_succeeds(CloneKey(0));
    assert!(world.core.short_of_memory().is_some());
    assert!(world.launching().is_empty());
}

#[test]
fn a_pool_that_wants_no_more_is_not_short() {
    let mut world = three_of_five();
    world.on(Event::Resized { target: 3, max: 6 });
    assert_eq!(world.core.short_of_memory(), None);
    assert_eq!(world.notes.last().map(String::as_str), Some("room again"));
}

#[test]
fn checkouts_wait_until_their_deadline_and_are_served_when_there_is_memory() {
    let mut world = three_of_five();
    for _ in 0..3 {
        world.checkout(OnEmpty::Wait);
    }
    let late = world.checkout_for(OnEmpty::Clone, 3 * SECOND, None);
    let served = world.checkout(OnEmpty::Wait);
    for _ in 0..2 {
        world.pass(SECOND);
        for clone in world.launching() {
            world.launch_is_refused(clone);
        }
    }
    assert!(world.refused.is_empty());
    world.pass(SECOND);
    assert_eq!(world.refused, [(late, Refusal::Empty)]);
    for clone in world.launching() {
        world.launch_is_refused(clone);
    }
    world.room_is_freed();
    world.launch_succeeds(world.launching()[0]);
    assert_eq!(world.granted.last().map(|grant| grant.0), Some(served));
}

#[test]
fn a_clone_to_be_replaced_makes_room_for_its_replacement() {
    let mut world = World::filled(LIMITS);
    world.publish();
    for clone in world.launching() {
        world.launch_is_refused(clone);
    }
    assert_eq!(world.ends.len(), 1, "one at a time");
    assert_eq!(world.ends.values().next(), Some(&EndReason::OldGeneration));
    let (ended, _) = world.under_way().expect("it is being ended");
    world.end_is_done(ended);
    world.room_is_freed();
    world.launch_succeeds(world.launching()[0]);
    world.settle();
    assert_eq!(world.ready().len(), 2);
    assert!(world.ready().iter().all(|clone| world.epochs[clone].0 == 1));
}

#[test]
fn one_that_is_refused_after_it_was_given_up_is_gone() {
    let mut world = World::new(FIVE);
    world.publish();
    world.on(Event::Stopped {
        leave_leased: false,
    });
    world.launch_is_refused(CloneKey(0));
    assert!(world.core.is_finished());
}
