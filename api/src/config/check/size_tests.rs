//! How much a guest has, as a user meets the checks of it.

use super::tests::Host;

#[test]
fn sizes_that_no_guest_can_have_are_refused() {
    let text = r#"
        [templates.a]
        memory = "63MiB"
        [templates.b]
        memory = "131073KiB"
        [templates.c]
        memory = "3GiB"
        [templates.d]
        vcpus = 0
        [templates.e]
        max_vcpus = 256
        [templates.f]
        memory = "lots"
    "#;
    insta::assert_snapshot!(Host::new().problems(text), @r#"
    6 problems in the configuration
      templates.a.memory = "63MiB": is out of range
        mend: use 64MiB to 4GiB
      templates.b.memory = "131073KiB": is no whole number of MiB
        mend: use 128MiB
      templates.c.memory = "3GiB": is more than max_memory, which is 2GiB
        mend: use at most 2GiB, or raise max_memory
      templates.d.vcpus = 0: is out of range
        mend: use 1 to 255
      templates.e.max_vcpus = 256: is out of range
        mend: use 1 to 255
      templates.f.memory = "lots": is no size
        mend: write it like "512KiB", "256MiB" or "1GiB"
    "#);
}

#[test]
fn the_built_in_guest_needs_more_memory_than_a_guest_may_have() {
    let host = Host::new();
    let text = |more: &str| format!("[templates.default]\nmemory = \"64MiB\"\n{more}");
    insta::assert_snapshot!(host.problems(&text("")), @r#"
    1 problem in the configuration
      templates.default.memory = "64MiB": is too little for the built-in guest, which needs 104MiB
        mend: use at least 104MiB, or a kernel and an initrd of your own
    "#);
    let file = |name| host.dir.path().join(name);
    let own = format!(
        "kernel = {:?}\ninitrd = {:?}",
        file("vmlinuz"),
        file("initrd.img")
    );
    assert!(host.examine(&text(&own)).problems.is_empty());
}
