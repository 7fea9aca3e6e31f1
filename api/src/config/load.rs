//! From a file to a [`Config`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use toml::Table;

use super::check;
use super::document;
use super::places::Places;
use super::problem::Problems;
use super::requested::Requested;
use super::validated::Config;

/// The default values, commented: `vmint config show`.
pub const DEFAULT_FILE: &str = include_str!("default.toml");
/// Read without `--config`, where it exists.
pub const SYSTEM_FILE: &str = "/etc/vmint/vmint.toml";

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("{place} is no TOML: {source}")]
    Syntax {
        /// Which file.
        place: String,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// The file says what cannot be.
    #[error("{place}: {problems}")]
    Problems {
        /// Which file.
        place: String,
        /// All that is wrong.
        problems: Problems,
    },
}

/// A configuration together with its mistakes.
#[derive(Clone, Debug)]
pub struct Examined {
    /// The file's name, or words for the default values.
    pub place: String,
    /// The document with every default value filled in.
    pub document: Table,
    /// The best that could be made of it: a value with a mistake is replaced by its default.
    pub config: Config,
    /// The mistakes.
    pub problems: Problems,
}

/// Reads a configuration and refuses every mistake in it.
///
/// # Errors
/// The file cannot be read, is no TOML, or has mistakes: all of them at once.
pub fn load(file: Option<&Path>, places: &Places) -> Result<Config, LoadError> {
    let Examined {
        place,
        config,
        problems,
        ..
    } = examine(file, places)?;
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(LoadError::Problems { place, problems })
    }
}

/// Reads a configuration and keeps its mistakes beside it.
///
/// # Errors
/// The file cannot be read or is no TOML.
pub fn examine(file: Option<&Path>, places: &Places) -> Result<Examined, LoadError> {
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|source| LoadError::Read {
            path: path.to_owned(),
            source,
        })
    };
    let system = Path::new(SYSTEM_FILE);
    match file {
        Some(path) => examine_text(&read(path)?, &path.display().to_string(), places),
        None if system.exists() => examine_text(&read(system)?, SYSTEM_FILE, places),
        None => examine_text("", "the default configuration", places),
    }
}

/// The same for a text.
///
/// # Errors
/// The text is no TOML.
pub fn examine_text(text: &str, place: &str, places: &Places) -> Result<Examined, LoadError> {
    let user = text.parse::<Table>().map_err(|source| LoadError::Syntax {
        place: place.to_owned(),
        source: Box::new(source),
    })?;
    let defaults = DEFAULT_FILE
        .parse::<Table>()
        .expect("the default file is TOML: a test reads it");
    let mut problems = Problems::default();
    let document = document::overlay(&defaults, &user, &mut problems);
    let requested = Requested::deserialize_from(&document);
    let config = check::check(&requested, places, &mut problems);
    Ok(Examined {
        place: place.to_owned(),
        document,
        config,
        problems,
    })
}

impl Requested {
    /// The overlay has the keys and the types of the default file, whatever the user wrote.
    fn deserialize_from(document: &Table) -> Self {
        document
            .clone()
            .try_into()
            .expect("an overlaid document has the types of the default file")
    }
}
