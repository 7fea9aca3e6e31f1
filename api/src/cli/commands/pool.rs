//! `vmint pool`

use http::Method;
use serde_json::json;

use super::path_with;
use crate::cli::args::PoolCommand;
use crate::cli::client::{ANSWER_TIMEOUT, Client};
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::table::{Table, or_dash};
use crate::http::view::{Pool, PoolList};

pub(in crate::cli) async fn run(
    client: &Client,
    output: Output,
    command: PoolCommand,
) -> Result<u8, CliError> {
    match command {
        PoolCommand::Ls => {
            let answer = client.get("/v1/pools").await?;
            output.show(&answer, |all: PoolList| list(&all.pools))
        }
        PoolCommand::Resize { name, target, max } => {
            let mut change = serde_json::Map::new();
            change.extend(target.map(|n| ("target".to_owned(), json!(n))));
            change.extend(max.map(|n| ("max".to_owned(), json!(n))));
            let path = path_with("/v1/pools/", &name, "");
            let answer = client
                .call(Method::PATCH, &path, Some(change.into()), ANSWER_TIMEOUT)
                .await?;
            output.show(&answer, |pool| list(&[pool]))
        }
        PoolCommand::Drain { name } => change(client, output, &name, "/drain").await,
        PoolCommand::Resume { name } => change(client, output, &name, "/resume").await,
    }
}

async fn change(client: &Client, output: Output, name: &str, what: &str) -> Result<u8, CliError> {
    let path = path_with("/v1/pools/", name, what);
    let answer = client.post(&path, None).await?;
    output.show(&answer, |pool| list(&[pool]))
}

/// What a pool is about, beside its work.
fn state(pool: &Pool) -> String {
    match &pool.roll {
        _ if pool.draining => "draining".to_owned(),
        Some(roll) => format!("rolling to {}", roll.to),
        None => "-".to_owned(),
    }
}

fn list(pools: &[Pool]) -> String {
    let mut table = Table::new(&[
        "TEMPLATE",
        "TARGET",
        "MAX",
        "READY",
        "UPDATED",
        "LAUNCHING",
        "LEASED",
        "RELEASING",
        "WAITERS",
        "HITS",
        "MISSES",
        "STATE",
        "DEGRADED",
    ]);
    for pool in pools {
        let numbers = [
            pool.ready,
            pool.updated,
            pool.launching,
            pool.leased,
            pool.releasing,
            pool.waiters,
        ];
        let mut row = vec![
            pool.template.clone(),
            pool.target.to_string(),
            pool.max.to_string(),
        ];
        row.extend(numbers.map(|n| n.to_string()));
        row.extend([
            pool.hits.to_string(),
            pool.misses.to_string(),
            state(pool),
            or_dash(pool.degraded.as_ref()),
        ]);
        table.row(row);
    }
    table.render()
}
