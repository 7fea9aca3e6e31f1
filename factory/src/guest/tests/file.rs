//! Files in pieces.

use super::*;
use crate::guest::{FileError, FileOwner, FilePiece, FileReader, WriteOptions};

/// Opens a file for reading; the guest answers with its head.
async fn reader(
    link: &Agent,
    guest: &mut Guest,
    size: Option<u64>,
) -> anyhow::Result<(FileReader, u16)> {
    let reading = tokio::spawn({
        let link = link.clone();
        async move { link.read_file("/etc/x").await }
    });
    let (id, open) = guest.opened().await?;
    anyhow::ensure!(open == json!({"read": {"path": "/etc/x"}}), "{open}");
    let head = json!({"size": size, "mode": 0o640}).to_string();
    guest.say(id, Kind::Data, 2, head.as_bytes()).await?;
    Ok((reading.await??, id))
}

#[tokio::test]
async fn a_file_is_read_to_its_end() -> anyhow::Result<()> {
    let (link, mut guest) = connected().await?;
    let (mut reader, id) = reader(&link, &mut guest, Some(6)).await?;
    assert_eq!((reader.size, reader.mode), (Some(6), 0o640));
    guest.say(id, Kind::Data, 1, b"abc").await?;
    guest.say(id, Kind::Data, 1, b"def").await?;
    guest.say(id, Kind::End, 1, b"").await?;
    guest.result(id, &json!({"size": 6})).await?;
    let mut content = Vec::new();
    while let Some(chunk) = reader.chunks.recv().await {
        content.extend_from_slice(&chunk?);
    }
    assert_eq!(content, b"abcdef");
    Ok(())
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_or_ends_early_is_an_error() -> anyhow::Result<()> {
    let (link, mut guest) = connected().await?;
    let refused = tokio::spawn({
        let link = link.clone();
        async move { link.read_file("/etc").await }
    });
    let (id, _) = guest.opened().await?;
    let error =
        json!({"error": {"code": "failed", "errno": 21, "message": "/etc: Is a directory"}});
    guest.result(id, &error).await?;
    let refused = refused.await?.map(drop);
    assert!(
        matches!(&refused, Err(error @ FileError::Refused { errno: 21, .. }) if error.to_string() == "/etc: Is a directory"),
        "{refused:?}"
    );
    let (mut reader, id) = reader(&link, &mut guest, Some(6)).await?;
    guest.result(id, &json!({"size": 6})).await?;
    let cut = reader.chunks.recv().await;
    assert!(
        matches!(&cut, Some(Err(FileError::Guest(GuestError::Proof { .. })))),
        "{cut:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_reader_that_is_dropped_closes_the_file() -> anyhow::Result<()> {
    let (link, mut guest) = connected().await?;
    let (reader, id) = reader(&link, &mut guest, Some(6)).await?;
    drop(reader);
    let frame = guest.frame().await?;
    assert_eq!((frame.stream, frame.kind), (id, Kind::Cancel));
    Ok(())
}

#[tokio::test]
async fn a_file_is_written_and_stored() -> anyhow::Result<()> {
    let (link, mut guest) = connected().await?;
    let mut options = WriteOptions::default();
    drop(link.write_file("/srv/y", options)?);
    let (_, open) = guest.opened().await?;
    assert_eq!(open, json!({"write": {"path": "/srv/y"}}));
    assert_eq!(guest.frame().await?.kind, Kind::Cancel);
    options.mode = Some(0o600);
    options.owner = Some(FileOwner { uid: 7, gid: None });
    let writer = link.write_file("/srv/x", options)?;
    let (id, open) = guest.opened().await?;
    let want = json!({"write": {"path": "/srv/x", "mode": 384, "owner": {"uid": 7}}});
    assert_eq!(open, want);
    writer.pieces.send(FilePiece::Bytes("abc".into())).await?;
    writer.pieces.send(FilePiece::End).await?;
    let data = guest.frame().await?;
    assert_eq!(
        (data.kind, data.payload.as_slice()),
        (Kind::Data, &b"abc"[..])
    );
    assert_eq!(guest.frame().await?.kind, Kind::End);
    guest.result(id, &json!({"size": 3})).await?;
    assert_eq!(writer.stored.await??, 3);
    Ok(())
}

#[tokio::test]
async fn a_guest_that_cannot_go_on_says_so_in_the_middle() -> anyhow::Result<()> {
    let (link, mut guest) = connected().await?;
    let writer = link.write_file("/srv/x", WriteOptions::default())?;
    let (id, _) = guest.opened().await?;
    // More than there is credit for: nobody waits for the rest.
    let much = bytes::Bytes::from(vec![0; 1 << 20]);
    writer.pieces.send(FilePiece::Bytes(much)).await?;
    guest.frame().await?;
    let full =
        json!({"error": {"code": "failed", "errno": 28, "message": "No space left on device"}});
    guest.result(id, &full).await?;
    let stored = writer.stored.await?;
    assert!(
        matches!(&stored, Err(FileError::Refused { errno: 28, .. })),
        "{stored:?}"
    );
    assert!(writer.pieces.send(FilePiece::End).await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_writer_that_is_dropped_leaves_nothing() -> anyhow::Result<()> {
    let (link, mut guest) = connected().await?;
    let writer = link.write_file("/srv/x", WriteOptions::default())?;
    let (id, _) = guest.opened().await?;
    drop(writer);
    let frame = guest.frame().await?;
    assert_eq!((frame.stream, frame.kind), (id, Kind::Cancel));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_does_nothing_for_a_file_is_given_up() -> anyhow::Result<()> {
    let (link, mut guest) = connected().await?;
    let writer = link.write_file("/srv/x", WriteOptions::default())?;
    guest.opened().await?;
    writer.pieces.send(FilePiece::End).await?;
    let stored = writer.stored.await?;
    assert!(
        matches!(&stored, Err(FileError::Guest(GuestError::Silent { .. }))),
        "{stored:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_file_whose_size_is_not_known_is_what_it_gives() -> anyhow::Result<()> {
    let (link, mut guest) = connected().await?;
    let (mut reader, id) = reader(&link, &mut guest, None).await?;
    assert_eq!(reader.size, None);
    guest.say(id, Kind::Data, 1, b"12\n").await?;
    guest.say(id, Kind::End, 1, b"").await?;
    guest.result(id, &json!({"size": 3})).await?;
    let mut content = Vec::new();
    while let Some(chunk) = reader.chunks.recv().await {
        content.extend_from_slice(&chunk?);
    }
    assert_eq!(content, b"12\n");
    Ok(())
}
