//! What the documents tell people to install.

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
