//! `auth`: a password that is asked for at the edge.

use std::collections::BTreeMap;

use super::super::model::Auth;
use super::super::raw::{Table, Value};
use super::super::schema::AUTH;
use super::{Home, listing};
use crate::password::Stored;

/// The largest file of users, in octets.
const MAX_FILE: u64 = 4 << 20;
/// The longest name of a user, in octets.
const MAX_NAME: usize = 255;
/// What browsers show where nothing is typed.
const REALM: &str = "restricted";

/// Reads `auth` of a site or a route over what it inherits. None: nobody is asked, or it is wrong.
pub(super) fn read(table: &Table<'_>, home: &Home<'_>, inherited: Option<&Auth>) -> Option<Auth> {
    let Some(value) = table.get("auth") else { return inherited.cloned() };
    match value.flag() {
        Some(false) => return None,
        None if value.node.is_table() => {}
        _ => {
            value.mismatch();
            return None;
        }
    }
    let table = value.table(&AUTH)?;
    let realm = table.get("realm").map_or_else(|| Some(REALM.to_owned()), |value| realm(&value));
    let file = table.get("file")?;
    let path = home.path(&file)?;
    let users = users(&listing::read(&path, &file, MAX_FILE)?);
    match users {
        Ok(users) if users.is_empty() => {
            let help = format!("add one with `htpasswd -B {} NAME`", path.display());
            file.refuse(format!("{} names nobody", path.display()), help);
            None
        }
        Ok(users) => Some(Auth { realm: realm?, file: path, users: users.into_iter().collect() }),
        Err(wrong) => {
            let help = format!("write them anew with `htpasswd -B {} NAME`", path.display());
            listing::refuse(&path, &file, wrong, &help);
            None
        }
    }
}

/// Text that stands between quotes in a header (RFC 9110 section 5.6.4).
fn realm(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if text.is_empty() || !text.bytes().all(|b| matches!(b, b' '..=b'~')) || text.contains(['"', '\\']) {
        let help = "letters, digits and spaces of ASCII, as in \"Staff only\"";
        value.refuse(format!("{text:?} cannot stand in a header"), help);
        return None;
    }
    Some(text.to_owned())
}

/// The lines of `htpasswd`: `name:hash`, and behind another colon a comment. Wrong ones by number.
fn users(bytes: &[u8]) -> Result<BTreeMap<String, Stored>, Vec<(usize, String)>> {
    let (mut users, mut first, mut wrong) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for (line, number) in bytes.split(|&b| b == b'\n').zip(1..) {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        match user(line) {
            Ok((name, stored)) => {
                if let Some(first) = first.get(&name) {
                    wrong.push((number, format!("{name:?} stands on line {first} already")));
                }
                first.entry(name.clone()).or_insert(number);
                users.insert(name, stored);
            }
            Err(message) => wrong.push((number, message)),
        }
    }
    if wrong.is_empty() { Ok(users) } else { Err(wrong) }
}

fn user(line: &[u8]) -> Result<(String, Stored), String> {
    let text = std::str::from_utf8(line).map_err(|_| "it is not UTF-8")?;
    let (name, rest) = text.split_once(':').ok_or("a name and a hash are wanted, with a colon between")?;
    if name.is_empty() || name.len() > MAX_NAME || name.contains(char::is_control) {
        return Err("nobody can be called so".into());
    }
    let hash = rest.split(':').next().unwrap_or_default();
    let stored = Stored::parse(hash).map_err(|bad| format!("the password of {name:?}: {bad}"))?;
    Ok((name.to_owned(), stored))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$5$acF3MbOnfWg4iTxJ$YFFUEA0SMxCza/60PPTRUwnQBquoKoDxiWANkDviPS/";

    #[test]
    fn lines_are_users_comments_or_wrong() {
        let good = format!("# staff\r\nzoë:{HASH}:since May\r\n\n  alice:{HASH}\n");
        assert_eq!(users(good.as_bytes()).unwrap().into_keys().collect::<Vec<_>>(), ["alice", "zoë"]);
        let bad = format!("alice\n:{HASH}\n#\nbob:{HASH}\nbob:{HASH}\ncarol:secret\n\0:{HASH}\n");
        let wrong = users(bad.as_bytes()).unwrap_err();
        assert_eq!(wrong.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 2, 5, 6, 7]);
        assert!(wrong.iter().all(|(_, message)| !message.contains("secret") && !message.contains("$5$")));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = users(&bytes);
        }
    }
}
