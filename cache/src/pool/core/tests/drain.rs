//! A pool that drains, and goes on.

use std::time::Duration;

use super::world::{LIMITS, World};
use crate::pool::core::{Drain, EndReason, Event, Refusal, Ticket};
use crate::request::OnEmpty;

fn drain(world: &mut World, whose: Drain) {
    world.on(Event::Drain { whose });
}

fn resume(world: &mut World, whose: Drain) {
    world.on(Event::Resume { whose });
}

#[test]
fn unused_clones_end_nothing_is_made_and_leased_ones_live_on() {
    let mut world = World::filled(LIMITS);
    world.checkout(OnEmpty::Wait);
    assert_eq!(world.launching().len(), 1);
    drain(&mut world, Drain::Pool);
    assert!(world.launching().is_empty() && world.ready().is_empty());
    world.settle();
    assert!(world.ends.values().all(|why| *why == EndReason::Drained));
    assert!(!world.core.is_drained());
    let leased = world.leased()[0];
    world.pass(Duration::from_secs(3_600));
    assert_eq!(world.leased(), [leased]);
    world.on(Event::Released { clone: leased });
    world.settle();
    assert!(world.core.is_drained());
}

#[test]
fn checkouts_are_refused_also_those_that_wait() {
    let mut world = World::new(LIMITS);
    world.checkout(OnEmpty::Wait);
    drain(&mut world, Drain::Node);
    world.checkout(OnEmpty::Clone);
    let why = Refusal::Draining;
    assert_eq!(world.refused, [(Ticket(0), why), (Ticket(1), why)]);
}

#[test]
fn what_comes_back_or_comes_up_too_late_ends() {
    let mut world = World::filled(LIMITS);
    world.checkout(OnEmpty::Wait);
    let (leased, late) = (world.leased()[0], world.launching()[0]);
    drain(&mut world, Drain::Pool);
    world.clones.insert(leased, super::world::Truth::Proved);
    world.on(Event::Returned { clone: leased });
    world.on(Event::Launched { clone: late });
    assert_eq!(world.ends[&leased], EndReason::Drained);
    assert_eq!(world.ends[&late], EndReason::GivenUp);
}

#[test]
fn it_goes_on_once_neither_it_nor_the_node_drains() {
    let mut world = World::filled(LIMITS);
    drain(&mut world, Drain::Pool);
    drain(&mut world, Drain::Node);
    world.settle();
    resume(&mut world, Drain::Node);
    assert!(world.core.is_draining() && world.launching().is_empty());
    resume(&mut world, Drain::Pool);
    world.settle();
    assert_eq!(world.ready().len(), 2);
}

#[test]
fn a_roll_waits_for_the_end_of_the_drain() {
    let mut world = World::filled(LIMITS);
    world.publish();
    drain(&mut world, Drain::Pool);
    world.settle();
    world.pass(Duration::from_secs(3_600));
    assert!(world.core.roll().is_some(), "the clock stands still");
    resume(&mut world, Drain::Pool);
    world.settle();
    assert_eq!(world.notes, ["rolls 0 1", "rolled 1"]);
}
