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

impl LoadError {
    /// The mistakes as JSON: none where the file cannot be read as a whole.
    #[must_use]
    pub fn problems_json(&self) -> serde_json::Value {
        match self {
            Self::Problems { problems, .. } => problems.json(),
            Self::Read { .. } | Self::Syntax { .. } => serde_json::json!([]),
        }
    }
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
    load_whole(file, places).map(|examined| examined.config)
}

/// The same, with the document that it came from.
///
/// # Errors
/// See [`load`].
pub fn load_whole(file: Option<&Path>, places: &Places) -> Result<Examined, LoadError> {
    let examined = examine(file, places)?;
    if examined.problems.is_empty() {
        return Ok(examined);
    }
    let Examined {
        place, problems, ..
    } = examined;
    Err(LoadError::Problems { place, problems })
}

/// The same for a client of the service, which needs no guest: that this host has none is no mistake of the file.
///
/// # Errors
/// See [`load`].
pub fn load_for_client(file: Option<&Path>, places: &Places) -> Result<Config, LoadError> {
    let Examined {
        place,
        config,
        mut problems,
        ..
    } = examine(file, places)?;
    let is_guest = |key: &str| key.ends_with(".kernel") || key.ends_with(".initrd");
    problems.retain(|problem| !is_guest(&problem.key));
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
    let place = place_of(file);
    match path_of(file) {
        Some(path) => examine_text(&read(path)?, &place, places),
        None => examine_text("", &place, places),
    }
}

/// The file that a configuration is read from; none where it is the default values alone.
pub(crate) fn path_of(file: Option<&Path>) -> Option<&Path> {
    let system = Path::new(SYSTEM_FILE);
    file.or_else(|| system.exists().then_some(system))
}

/// Where a configuration comes from, in words.
pub(super) fn place_of(file: Option<&Path>) -> String {
    path_of(file).map_or_else(
        || "the default configuration".to_owned(),
        |path| path.display().to_string(),
    )
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
