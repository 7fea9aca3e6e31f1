//! `vmint doctor`

use std::net::SocketAddr;

use vmint_factory::{Check, Verdict};

use crate::cli::args::Options;
use crate::cli::error::CliError;
use crate::cli::output::{Output, print};
use crate::cli::table::Table;
use crate::config::{self, Examined, Places};
use crate::serve::{NO_DIAG_HINT, probe_diag};

/// Exit code when something does not work.
const NOT_WELL: u8 = 1;

pub(in crate::cli) async fn run(options: &Options, output: Output) -> Result<u8, CliError> {
    let examined = config::examine(options.config.as_deref(), &Places::of_this_host())?;
    let mut checks = configuration(&examined);
    if let Some(plan) = examined.config.templates.first() {
        checks.extend(vmint_factory::doctor(&examined.config.host, &plan.spec).await);
    }
    checks.extend(examined.config.server.listen.map(tcp_clients));
    print(&if output.json {
        json(&checks)
    } else {
        text(&checks)
    })?;
    let failed = checks.iter().any(|check| check.verdict == Verdict::Fail);
    Ok(if failed { NOT_WELL } else { 0 })
}

/// The mistakes of the configuration, as checks beside the others.
fn configuration(examined: &Examined) -> Vec<Check> {
    let check = |verdict, detail, mend| Check {
        name: "configuration".to_owned(),
        verdict,
        detail,
        mend,
    };
    if examined.problems.is_empty() {
        return vec![check(Verdict::Ok, examined.place.clone(), None)];
    }
    let problems = examined.problems.as_slice().iter();
    problems
        .map(|problem| {
            let detail = format!("{} = {}: {}", problem.key, problem.value, problem.reason);
            check(Verdict::Fail, detail, Some(problem.mend.clone()))
        })
        .collect()
}

/// Whether the kernel says which user connects over TCP: without it nobody is served there.
fn tcp_clients(listen: SocketAddr) -> Check {
    let name = "tcp clients".to_owned();
    match probe_diag(listen.ip()) {
        Ok(()) => Check {
            name,
            verdict: Verdict::Ok,
            detail: "the kernel says which user connects (NETLINK_SOCK_DIAG)".to_owned(),
            mend: None,
        },
        Err(error) => Check {
            name,
            verdict: Verdict::Warn,
            detail: format!(
                "the kernel does not say which user connects over TCP, so every request over TCP is refused: {error}"
            ),
            mend: Some(NO_DIAG_HINT.to_owned()),
        },
    }
}

fn json(checks: &[Check]) -> String {
    serde_json::json!({ "checks": checks }).to_string()
}

fn text(checks: &[Check]) -> String {
    let mut table = Table::of_fields();
    for check in checks {
        let verdict = match check.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        table.row([verdict.to_owned(), check.name.clone(), check.detail.clone()]);
        if let Some(mend) = &check.mend {
            table.row([String::new(), String::new(), format!("mend: {mend}")]);
        }
    }
    table.render()
}
