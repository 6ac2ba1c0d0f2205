//! [`UnixSocket`]: a listener in the file system that only its owner may connect to, and that leaves nothing behind.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// A listening socket; its file is removed when it is dropped.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl UnixSocket {
    /// Listens at `path`. A socket that a server left there when it was killed is replaced.
    ///
    /// # Errors
    /// Something else is there, a server listens there, or the folder does not allow it.
    pub fn bind(path: &Path) -> io::Result<UnixSocket> {
        if fs::symlink_metadata(path).is_ok() {
            match std::os::unix::net::UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && is_socket(path) => {
                    fs::remove_file(path)?;
                }
                Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "a server listens there")),
                Err(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else is there")),
            }
        }
        // Made in a folder that nobody else may enter, so that there is no moment when others could connect.
        let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it names no file"))?;
        let folder = path.with_file_name(format!(".ir-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let made = || {
            let inside = folder.join(name);
            let listener = UnixListener::bind(&inside)?;
            fs::set_permissions(&inside, fs::Permissions::from_mode(0o600))?;
            fs::rename(&inside, path)?;
            Ok(UnixSocket { listener, path: path.to_owned() })
        };
        let socket = made();
        let _ = fs::remove_dir_all(&folder);
        socket
    }

    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // Gone already: nothing is left behind either.
        let _ = fs::remove_file(&self.path);
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
}
