//! The queue and the writer, with readers that stall, go away, and come back.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};

use super::super::queue::{BYTES_MAX, LINES_MAX};
use super::*;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A queue whose writer writes into a pipe.
fn piped(flags: PipeFlags) -> (Arc<Queue>, std::io::PipeReader) {
    let (reader, writer): (OwnedFd, OwnedFd) =
        pipe_with(flags | PipeFlags::CLOEXEC).expect("a pipe");
    let queue = Arc::new(Queue::default());
    let theirs = Arc::clone(&queue);
    thread::spawn(move || run(&theirs, Style::Text, &writer));
    (queue, reader.into())
}

fn numbered(at: usize) -> String {
    format!("line {at}\n")
}

#[test]
fn a_reader_that_stalls_costs_lines_which_are_counted_and_reported_in_their_place() {
    for flags in [PipeFlags::empty(), PipeFlags::NONBLOCK] {
        let (queue, mut reader) = piped(flags);
        if flags.contains(PipeFlags::NONBLOCK) {
            let reading = rustix::fs::OFlags::empty();
            rustix::fs::fcntl_setfl(&reader, reading).expect("the reader blocks");
        }
        // More than the pipe and the queue hold, and none of it waits for the reader.
        let long = "x".repeat(100);
        for at in 0..3 * LINES_MAX {
            queue.push(format!("{at} {long}\n"));
        }
        let dropped = queue.dropped();
        assert!(dropped > 0);
        assert!(!queue.flush(Duration::from_millis(1)), "nobody reads");
        queue.push("after the loss\n".to_owned());
        let dropped = queue.dropped().max(dropped);
        // The reader comes back.
        let reading = thread::spawn(move || {
            let mut text = Vec::new();
            let mut piece = [0; 4096];
            while !text.ends_with(b"the end\n") {
                let count = reader.read(&mut piece).expect("read");
                text.extend_from_slice(&piece[..count]);
            }
            String::from_utf8(text).expect("text")
        });
        assert!(queue.flush(PATIENCE), "it is read again");
        queue.push("the end\n".to_owned());
        let text = reading.join().expect("the reader");
        let kept = text.lines().filter(|line| line.ends_with(&long)).count();
        let lost = 3 * LINES_MAX - kept + usize::from(!text.contains("after the loss"));
        let notices = text.lines().filter_map(|line| line.split_once("dropped="));
        let reported = notices.map(|(_, count)| count.parse::<usize>().expect("a number"));
        assert_eq!(reported.sum::<usize>(), lost);
        assert_eq!(dropped, lost as u64);
    }
}

#[test]
fn a_reader_that_is_gone_costs_lines_and_nothing_else() {
    let (queue, reader) = piped(PipeFlags::empty());
    drop(reader);
    for at in 0..100 {
        queue.push(numbered(at));
    }
    assert!(queue.flush(PATIENCE));
    assert_eq!(queue.dropped(), 100);
}

#[test]
fn no_room_for_a_while_is_reported_once_there_is_some() {
    // A device that never has room, and then another one: what a full disk is like.
    let full: OwnedFd = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("the device")
        .into();
    let mut lost = Unreported::default();
    let queue = Queue::default();
    queue.push(numbered(1));
    lost.write(&queue, queue.next(), Style::Text, &full);
    queue.push(numbered(2));
    lost.write(&queue, queue.next(), Style::Text, &full);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    queue.push(numbered(3));
    lost.write(&queue, queue.next(), Style::Text, &writer);
    drop(writer);
    let text = std::io::read_to_string(reader).expect("text");
    assert!(text.contains("dropped=2\nline 3\n"), "{text}");
    assert_eq!(queue.dropped(), 2);
}

#[test]
fn the_queue_is_bounded_in_lines_and_in_bytes() {
    let queue = Queue::default();
    for at in 0..LINES_MAX + 5 {
        queue.push(numbered(at));
    }
    assert_eq!(queue.dropped(), 5);
    let queue = Queue::default();
    for _ in 0..3 {
        queue.push("x".repeat(BYTES_MAX / 2));
    }
    assert_eq!(queue.dropped(), 1);
    // The place in the queue where they are missing is known.
    let first = queue.next();
    assert_eq!((first.dropped_before, first.line.is_some()), (0, true));
    drop(queue.next());
    let entry = queue.next();
    assert_eq!((entry.dropped_before, entry.line), (1, None));
    queue.push("again\n".to_owned());
    let entry = queue.next();
    assert_eq!(
        (entry.dropped_before, entry.line.as_deref()),
        (0, Some("again\n"))
    );
}
