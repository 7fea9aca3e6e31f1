//! The checks as a user meets them: a text in, the mistakes out.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use vmint_cache::OnStale;

use crate::config::{DEFAULT_FILE, Examined, Places, examine_text, show_effective};

/// A host with a guest, seen by a plain user.
pub(super) struct Host {
    pub(super) dir: TempDir,
}

impl Host {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["vmlinuz", "initrd.img"] {
            fs::write(dir.path().join(name), "x").expect("a guest");
        }
        Self { dir }
    }

    fn places(&self) -> Places {
        Places {
            uid: 1000,
            xdg_runtime_dir: Some("/run/user/1000".into()),
            guest_dirs: vec![self.dir.path().into()],
            memory_mib: 4096,
            vsock_refusal: Some("this host has no /dev/vhost-vsock".to_owned()),
        }
    }

    pub(super) fn examine(&self, text: &str) -> Examined {
        examine_text(text, "test.toml", &self.places()).expect("TOML")
    }

    pub(super) fn problems(&self, text: &str) -> String {
        self.examine(text).problems.to_string()
    }
}

#[test]
fn the_default_file_has_no_mistakes_and_stands_for_no_file() {
    let host = Host::new();
    let examined = host.examine("");
    assert!(examined.problems.is_empty(), "{}", examined.problems);
    let full = host.examine(DEFAULT_FILE);
    assert_eq!(
        format!("{:?}", full.config),
        format!("{:?}", examined.config)
    );

    let config = examined.config;
    assert_eq!(config.server.listen, Some(([127, 0, 0, 1], 7070).into()));
    assert_eq!(
        config.server.socket,
        Path::new("/run/user/1000/vmint/api.sock")
    );
    assert_eq!(config.host.template_path, Path::new("/dev/shm/vmint-1000"));
    assert_eq!(config.host.qemu_user, None);
    assert_eq!(config.max_ttl, Some(Duration::from_secs(24 * 3600)));
    assert!((config.memory_share - 0.8).abs() < 1e-9);
    let [plan] = config.templates.as_slice() else {
        panic!("one template")
    };
    assert_eq!(
        (
            plan.spec.memory_mib,
            plan.spec.max_memory_mib,
            plan.spec.vcpus
        ),
        (256, 2048, 1)
    );
    assert_eq!(plan.spec.kernel, host.dir.path().join("vmlinuz"));
    assert_eq!(
        (plan.pool.target, plan.pool.max, plan.pool.queue),
        (2, 16, 1024)
    );
}

#[test]
fn root_works_in_run_and_needs_another_user_for_qemu() {
    let host = Host::new();
    let places = Places {
        uid: 0,
        ..host.places()
    };
    let examined = examine_text("", "test.toml", &places).expect("TOML");
    assert!(examined.problems.is_empty(), "{}", examined.problems);
    assert_eq!(examined.config.host.run_dir, Path::new("/run/vmint"));
    assert_eq!(
        examined.config.host.template_path,
        Path::new("/run/vmint/template")
    );
    assert_eq!(examined.config.host.qemu_user.as_deref(), Some("vmint"));
    assert_eq!(
        examined.config.host.build_user.as_deref(),
        Some("vmint-build")
    );

    let examined =
        examine_text("[host]\nqemu_user = \"root\"", "test.toml", &places).expect("TOML");
    insta::assert_snapshot!(examined.problems, @r#"
    1 problem in the configuration
      host.qemu_user = "root": would let QEMU run as root
        mend: name a user without rights, such as "vmint" (useradd --system --no-create-home vmint)
    "#);

    let shared = "[host]\nqemu_user = \"vmint-build\"";
    let examined = examine_text(shared, "test.toml", &places).expect("TOML");
    insta::assert_snapshot!(examined.problems, @r#"
    1 problem in the configuration
      host.build_user = "vmint-build": is qemu_user, too: a clone that was broken out of could write to a template that is being built
        mend: name another user without rights, or leave it out
    "#);
}

#[test]
fn a_file_with_templates_has_those_only_and_each_starts_from_the_default_values() {
    let examined = Host::new()
        .examine("[templates.python]\nmemory = \"512MiB\"\n[templates.node.pool]\ntarget = 0");
    assert!(examined.problems.is_empty(), "{}", examined.problems);
    let plans = examined.config.templates;
    let names: Vec<&str> = plans.iter().map(|plan| plan.spec.name.as_str()).collect();
    assert_eq!(names, ["node", "python"]);
    assert_eq!((plans[0].spec.memory_mib, plans[0].pool.target), (256, 0));
    assert_eq!((plans[1].spec.memory_mib, plans[1].pool.target), (512, 2));
}

#[test]
fn every_mistake_is_told_at_once_with_its_key_value_and_mend() {
    let text = r#"
        colour = 1
        [server]
        listen = "0.0.0.0:7070"
        socket_mode = "9"
        lissten = "x"
        [host]
        max_ttl = "1 week"
        accel = "warp"
        [templates.default]
        vcpus = 5
        memory = "8TiB"
        max_memory = 3
        warmup = ["ls"]
        [templates.default.pool]
        target = 20
        max = 3
        ttl = "48h"
        queue = -1
    "#;
    insta::assert_snapshot!(Host::new().problems(text), @r#"
    13 problems in the configuration
      colour = 1: is no key that vmint knows
        mend: remove it, or use one of: host, server, templates
      server.lissten = "x": is no key that vmint knows
        mend: remove it, or use one of: listen, socket, socket_group, socket_mode
      templates.default.max_memory = 3: is a whole number, but must be a string
        mend: write it like the default value, "2GiB"
      templates.default.warmup = ["ls"]: must be a list of commands, each a list of strings with the program first
        mend: write it like [["/bin/true"], ["echo", "hello"]]
      host.accel = "warp": is none of the choices
        mend: use one of: "auto", "kvm", "tcg"
      host.max_ttl = "1 week": is no duration
        mend: write it like "250ms", "120s", "5m" or "1h30m"
      server.listen = "0.0.0.0:7070": reaches beyond this host, and there are no tokens yet
        mend: use a loopback address such as "127.0.0.1:7070", or "" to turn TCP off
      server.socket_mode = "9": is no set of rights in octal
        mend: write it like "0600" or "0660"
      templates.default.vcpus = 5: is more than max_vcpus, which is 4
        mend: use at most 4, or raise max_vcpus
      templates.default.memory = "8TiB": is out of range
        mend: use 64MiB to 4GiB
      templates.default.pool.target = 20: is more than max, which is 3
        mend: use at most 3, or raise max
      templates.default.pool.ttl = "48h": is longer than host.max_ttl
        mend: use at most "86400s", or raise host.max_ttl ("0" = no limit)
      templates.default.pool.queue = -1: is out of range
        mend: use 0 to 100000
    "#);
}

#[test]
fn generations_are_kept_and_treated_as_asked() {
    let text = r#"
        [templates.default]
        on_stale = "ignore"
        keep_generations = 0
    "#;
    insta::assert_snapshot!(Host::new().problems(text), @r#"
    2 problems in the configuration
      templates.default.keep_generations = 0: is out of range
        mend: use 1 to 16
      templates.default.on_stale = "ignore": is none of the choices
        mend: use one of: "rebuild", "warn", "refuse"
    "#);
    for (word, on_stale) in [
        ("rebuild", OnStale::Rebuild),
        ("warn", OnStale::Warn),
        ("refuse", OnStale::Refuse),
    ] {
        let text = format!("[templates.default]\nkeep_generations = 16\non_stale = \"{word}\"");
        let examined = Host::new().examine(&text);
        let plan = &examined.config.templates[0];
        assert_eq!((plan.on_stale, plan.spec.keep_generations), (on_stale, 16));
    }
}

#[test]
fn a_microvm_needs_no_other_maxima_although_it_has_no_hotplug() {
    let text = r#"
        [templates.default]
        machine = "microvm"
    "#;
    let problems = Host::new().examine(text).problems;
    assert!(problems.is_empty(), "{problems}");
}

#[test]
fn vsock_needs_the_hosts_device_and_a_board_that_has_it() {
    let text = r#"
        [templates.a]
        vsock = true
        [templates.b]
        machine = "microvm"
        vsock = true
    "#;
    insta::assert_snapshot!(Host::new().problems(text), @r#"
    2 problems in the configuration
      templates.a.vsock = true: this host has no /dev/vhost-vsock
        mend: load the module (modprobe vhost_vsock), let the service open the device, or use false
      templates.b.vsock = true: is not possible with machine "microvm"
        mend: use machine "q35", or false
    "#);
}

#[test]
fn paths_must_be_whole_short_enough_and_there() {
    let long = format!("/run/{}", "x".repeat(80));
    let text = format!(
        r#"
        [server]
        socket = "api.sock"
        [host]
        run_dir = "{long}"
        [templates.default]
        kernel = "/nonexistent/vmlinuz"
        initrd = "initrd.img"
    "#
    );
    insta::assert_snapshot!(Host::new().problems(&text).replace(&"x".repeat(80), "x..x"), @r#"
    4 problems in the configuration
      host.run_dir = "/run/x..x": the sockets in it would have paths of 114 bytes, and 107 is the limit
        mend: use a path of at most 78 bytes
      server.socket = "api.sock": is a relative path
        mend: write the whole path, from / on
      templates.default.kernel = "/nonexistent/vmlinuz": there is no such file
        mend: build the guest with scripts/guest, or name a file that is there
      templates.default.initrd = "initrd.img": is a relative path
        mend: write the whole path, from / on
    "#);
}

#[test]
fn a_guest_that_was_not_built_is_missed() {
    let places = Places {
        guest_dirs: vec![PathBuf::from("/nonexistent/guest")],
        ..Host::new().places()
    };
    let examined = examine_text("", "test.toml", &places).expect("TOML");
    insta::assert_snapshot!(examined.problems, @r#"
    2 problems in the configuration
      templates.default.kernel = "": there is no vmlinuz in any of: /nonexistent/guest
        mend: build the guest with scripts/guest, or name a file that is there
      templates.default.initrd = "": there is no initrd.img in any of: /nonexistent/guest
        mend: build the guest with scripts/guest, or name a file that is there
    "#);
}

#[test]
fn a_template_needs_a_plain_name_and_a_file_needs_a_template() {
    let host = Host::new();
    insta::assert_snapshot!(host.problems("[templates.\"../x\"]\n[templates.Big]"), @r#"
    2 problems in the configuration
      templates."../x" = "../x": is no name for a template
        mend: use lower-case letters, digits and dashes, at most 48
      templates."Big" = "Big": is no name for a template
        mend: use lower-case letters, digits and dashes, at most 48
    "#);
    insta::assert_snapshot!(host.problems("[templates]"), @r"
    1 problem in the configuration
      templates = {}: names no template
        mend: remove the empty [templates], or describe one: [templates.default]
    ");
}

#[test]
fn a_lease_without_an_end_needs_a_host_without_a_limit() {
    let host = Host::new();
    let text = "[host]\nmax_ttl = \"0\"\n[templates.default.pool]\nttl = \"0\"";
    assert!(host.examine(text).problems.is_empty());
    insta::assert_snapshot!(host.problems("[templates.default.pool]\nttl = \"0\""), @r#"
    1 problem in the configuration
      templates.default.pool.ttl = "0": means until released, and host.max_ttl forbids that
        mend: use at most "86400s", or raise host.max_ttl ("0" = no limit)
    "#);
}

#[test]
fn listening_beyond_this_host_is_refused_in_every_notation() {
    let host = Host::new();
    for bad in [
        "0.0.0.0:7070",
        "192.168.0.1:80",
        "[::]:7070",
        "example.org:80",
        "127.0.0.1",
        "localhost",
        ":7070",
    ] {
        let problems = host
            .examine(&format!("[server]\nlisten = \"{bad}\""))
            .problems;
        assert_eq!(problems.as_slice().len(), 1, "{bad}: {problems}");
    }
    for good in ["127.0.0.1:0", "[::1]:7070", "localhost:7070", "127.9.9.9:1"] {
        let examined = host.examine(&format!("[server]\nlisten = \"{good}\""));
        assert!(
            examined.problems.is_empty() && examined.config.server.listen.is_some(),
            "{good}"
        );
    }
    assert_eq!(
        host.examine("[server]\nlisten = \"\"").config.server.listen,
        None
    );
}

#[test]
fn a_share_of_the_memory_is_above_nothing_and_at_most_all() {
    let host = Host::new();
    let text = |share: &str| format!("[host]\nmemory_share = {share}");
    for good in ["1", "1.0", "0.5", "1e-3"] {
        let examined = host.examine(&text(good));
        assert!(examined.problems.is_empty(), "{}", examined.problems);
        assert!(show_effective(&examined).contains("memory_share = "));
    }
    for bad in ["0.0", "-0.5", "1.01", "nan", "inf"] {
        let problems = host.problems(&text(bad));
        assert!(problems.contains("is no share"), "{bad}: {problems}");
    }
    insta::assert_snapshot!(host.problems(&text("80.0")), @r"
    1 problem in the configuration
      host.memory_share = 80.0: is no share
        mend: use a fraction above 0 and up to 1.0, such as 0.8
    ");
    let whole = host.problems(&text("80"));
    assert!(
        whole.contains("memory_share = 80.0: is no share"),
        "{whole}"
    );
    let text = host.problems(&text("true"));
    assert!(
        text.contains("must be a number") && text.contains("0.8"),
        "{text}"
    );
}

#[test]
fn what_a_file_comes_to_can_be_read_again() {
    let host = Host::new();
    let first =
        host.examine("[templates.python]\nwarmup = [[\"python3\", \"-c\", \"import json\"]]");
    let second = host.examine(&show_effective(&first));
    assert!(second.problems.is_empty(), "{}", second.problems);
    assert_eq!(
        format!("{:?}", first.config),
        format!("{:?}", second.config)
    );
}
