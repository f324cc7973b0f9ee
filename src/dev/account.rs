//! Under whose name the private servers run.
//!
//! PostgreSQL refuses to run as root. There, both servers get the account
//! `postgres`, or `nobody`.

use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use tokio::process::Command;

/// The account of the private servers.
#[derive(Clone)]
pub(super) enum Account {
    /// That of this process.
    Own,
    /// Another one: this process is root's.
    Other {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// Its name, for messages.
        name: String,
    },
}

impl Account {
    /// The own account, unless it is root's.
    pub(super) fn for_servers() -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Own);
        }
        let accounts = std::fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| find(&accounts, name))
            .context("PostgreSQL refuses to run as root, and there is no account `postgres` or `nobody`: run `freshet dev` as another user")
    }

    /// Makes `command` run under it.
    pub(super) fn apply(&self, command: &mut Command) {
        if let Self::Other { uid, gid, .. } = self {
            command.uid(*uid).gid(*gid);
        }
    }

    /// Gives it the file or folder at `path`.
    pub(super) fn give(&self, path: &Path) -> anyhow::Result<()> {
        if let Self::Other { uid, gid, name } = self {
            chown(path, Some(*uid), Some(*gid))
                .with_context(|| format!("cannot give {} to {name}", path.display()))?;
        }
        Ok(())
    }

    /// Whether it can reach the folder `path`, whatever lies above it.
    pub(super) async fn can_enter(&self, path: &Path) -> bool {
        // Asked of the system instead of computed: groups, access lists and
        // mounts all have their say.
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "cd -- \"$0\""])
            .arg(path)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.apply(&mut command);
        command.status().await.is_ok_and(|status| status.success())
    }
}

/// Finds `name` in the text of `/etc/passwd`.
fn find(accounts: &str, name: &str) -> Option<Account> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let (uid, gid) = (fields.nth(1)?, fields.next()?);
        Some(Account::Other {
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            name: name.to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_read_from_the_list() {
        let list = "root:x:0:0:root:/root:/bin/sh\npostgres:x:104:110:,,,:/var/lib:/bin/sh\n";
        let Some(Account::Other { uid, gid, .. }) = find(list, "postgres") else {
            panic!("not found");
        };
        assert_eq!((uid, gid), (104, 110));
        assert!(find(list, "nobody").is_none());
    }
}
