//! Where the shell's history lies: readable by its owner only, since it holds keys and values.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The history's file, made if it is not there; `None`: there is no home to keep it in.
pub(super) fn prepare() -> io::Result<Option<PathBuf>> {
    let of = |name| std::env::var_os(name).map(PathBuf::from);
    let Some(path) = path(of("XDG_STATE_HOME"), of("HOME")) else {
        return Ok(None);
    };
    make(&path)?;
    Ok(Some(path))
}

/// By the XDG base directory rules: a path that is not absolute counts as none.
fn path(state_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let state_home = state_home.filter(|path| path.is_absolute());
    let home = home.filter(|path| path.is_absolute());
    let state = state_home.or_else(|| home.map(|home| home.join(".local/state")))?;
    Some(state.join("ostrakon/history"))
}

fn make(path: &Path) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_follows_the_environment() {
        let of = |state_home: &str, home: &str| path(Some(state_home.into()), Some(home.into()));
        assert_eq!(of("/s", "/h"), Some("/s/ostrakon/history".into()));
        assert_eq!(of("s", "/h"), Some("/h/.local/state/ostrakon/history".into()));
        assert_eq!(of("", ""), None);
        assert_eq!(path(None, None), None);
    }

    #[test]
    fn the_file_is_its_owners_only_whatever_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/history");
        make(&path).unwrap();
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::write(&path, "kept").unwrap();
        make(&path).unwrap();
        assert_eq!((mode(), std::fs::read(&path).unwrap()), (0o600, b"kept".to_vec()));
    }
}
