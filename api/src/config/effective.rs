//! What a configuration comes to: every key, with the places that were found in it.

use toml::{Table, Value};

use super::load::Examined;

/// The whole configuration as TOML. It can be given to `--config` again.
#[must_use]
pub fn show_effective(examined: &Examined) -> String {
    let document = effective(examined);
    format!("# What {} comes to.\n{document}", examined.place)
}

/// The whole configuration, with the places in it.
#[must_use]
pub fn effective(examined: &Examined) -> Table {
    let Examined {
        document, config, ..
    } = examined;
    let mut document = document.clone();
    let path = |path: &std::path::Path| path.display().to_string();
    set(
        &mut document,
        "server",
        "socket",
        path(&config.server.socket),
    );
    set(&mut document, "host", "run_dir", path(&config.host.run_dir));
    set(
        &mut document,
        "host",
        "template_path",
        path(&config.host.template_path),
    );
    if let Some(Value::Table(templates)) = document.get_mut("templates") {
        for plan in &config.templates {
            set(
                templates,
                &plan.spec.name,
                "kernel",
                path(&plan.spec.kernel),
            );
            set(
                templates,
                &plan.spec.name,
                "initrd",
                path(&plan.spec.initrd),
            );
        }
    }
    document
}

fn set(document: &mut Table, table: &str, key: &str, value: String) {
    if let Some(Value::Table(table)) = document.get_mut(table) {
        table.insert(key.to_owned(), Value::String(value));
    }
}
