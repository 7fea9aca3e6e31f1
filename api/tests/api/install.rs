//! What the documents tell people to install.

use std::process::Command;

/// The unit for systemd in `docs/install.md`.
fn unit() -> Vec<&'static str> {
    let document = include_str!("../../../docs/install.md");
    let (_, unit) = document.split_once("```ini\n").unwrap();
    let (unit, _) = unit.split_once("```").unwrap();
    unit.lines().map(str::trim).collect()
}

#[test]
fn the_unit_lets_sandboxes_outlive_a_restart_and_each_other() {
    let unit = unit();
    let at = |line: &str| unit.iter().position(|known| *known == line);
    let service = at("[Service]").unwrap()..at("[Install]").unwrap();
    for line in [
        "KillMode=process",
        "OOMPolicy=continue",
        "TasksMax=infinity",
        "LimitCORE=0",
        // An abort is a failure.
        "Restart=on-failure",
    ] {
        assert!(at(line).is_some_and(|at| service.contains(&at)), "{line}");
    }
}

#[test]
fn systemd_takes_every_line_of_the_unit() {
    let verify = |unit: &str| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vmint.service");
        // The program that it starts must be there.
        let unit = unit.replace("/usr/local/bin/vmint", env!("CARGO_BIN_EXE_vmint"));
        std::fs::write(&file, unit).unwrap();
        let mut analyze = Command::new("systemd-analyze");
        let output = analyze.arg("verify").arg(&file).output().unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    if let Err(error) = Command::new("systemd-analyze").arg("--version").output() {
        eprintln!("NOT TRIED, on a host without systemd-analyze: {error}");
        return;
    }
    let unit = unit().join("\n");
    assert_eq!(verify(&unit), (true, String::new()));
    let mistaken = unit.replace("OOMPolicy=", "OOMPolicies=");
    let (_, said) = verify(&mistaken);
    assert!(said.contains("OOMPolicies"), "it looks at nothing: {said}");
}
