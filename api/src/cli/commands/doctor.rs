//! `vmint doctor`

use vmint_factory::{Check, Verdict};

use crate::cli::args::Options;
use crate::cli::error::CliError;
use crate::cli::output::{Output, print};
use crate::cli::table::Table;
use crate::config::{self, Examined, Places};

/// Exit code when something does not work.
const NOT_WELL: u8 = 1;

pub(in crate::cli) async fn run(options: &Options, output: Output) -> Result<u8, CliError> {
    let examined = config::examine(options.config.as_deref(), &Places::of_this_host())?;
    let mut checks = configuration(&examined);
    if let Some(plan) = examined.config.templates.first() {
        checks.extend(vmint_factory::doctor(&examined.config.host, &plan.spec).await);
    }
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
