//! Files of the agent's own that are read and replaced as a whole.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// A larger file was not written by an agent.
const MAX_BYTES: u64 = 64 << 20;

/// The text of a file; `None` if there is none.
///
/// # Errors
/// If it cannot be read; of kind `InvalidData` if it is nothing that an agent wrote.
pub fn read(path: &Path) -> io::Result<Option<String>> {
    // Neither a link that somebody put there nor a pipe that never ends.
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(invalid("found a link, expected a file"));
        }
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(invalid("found no regular file, expected one"));
    }
    if metadata.len() > MAX_BYTES {
        return Err(invalid("found more bytes than any agent writes"));
    }
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(Some(text))
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Replaces a file; its directory is made if it is missing.
///
/// # Errors
/// If it cannot be written. The file is what it was, then.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let draft = path.with_extension("json.new");
    // A draft of an agent that was killed while it wrote.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    write_new(&draft, text.as_bytes())?;
    fs::rename(&draft, path)?;
    sync(dir)
}

/// Writes a file that is not there yet, for nobody else to read, so that it outlives a loss of power.
///
/// # Errors
/// If it is there, or cannot be written.
pub fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Has the names in a directory outlive a loss of power.
///
/// # Errors
/// If it cannot.
pub fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
