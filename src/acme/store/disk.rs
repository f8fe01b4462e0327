//! One file of the store: framed, checked, sealed in places, and never without a whole generation.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use time::macros::format_description;

use super::seal::Seal;
use super::{StoreError, hex};
use crate::tls::StoreError as FileError;
use crate::tls::record as file;

/// The format of the files that this version writes.
const VERSION: u32 = 1;
/// What a sealed place looks like.
const SEALED: &str = "sealed";
/// What the proof of a key says.
const PROOF: &str = "vestibule";

/// What stands in a file.
#[derive(Serialize, Deserialize)]
struct Frame {
    version: u32,
    /// Of the content, in its shortest form: a key with one wrong letter parses as well as a right one.
    sha256: String,
    content: Value,
}

/// Why a generation cannot be given.
enum Refused {
    /// It is damaged: the one before it may do.
    Damaged(String),
    /// Everything else is told, and nothing is touched.
    Fatal(StoreError),
}

impl<E: Into<StoreError>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Fatal(error.into())
    }
}

/// The newest generation that is whole. A newer one that is damaged is set aside.
pub(super) fn load<T: DeserializeOwned>(
    path: &Path,
    secrets: &[&str],
    seal: Option<&Seal>,
) -> Result<Option<T>, StoreError> {
    match generation(path, path, secrets, seal) {
        Ok(None) => {}
        Ok(found) => return Ok(found),
        Err(Refused::Fatal(error)) => return Err(error),
        Err(Refused::Damaged(why)) => set_aside(path, path, &why)?,
    }
    let previous = previous(path);
    match generation(&previous, path, secrets, seal) {
        Ok(found) => Ok(found),
        Err(Refused::Fatal(error)) => Err(error),
        Err(Refused::Damaged(why)) => set_aside(&previous, path, &why).map(|()| None),
    }
}

/// The newest generation that is whole, without its secrets. Changes nothing.
pub(super) fn look<T: DeserializeOwned>(path: &Path, secrets: &[&str]) -> Result<Option<T>, StoreError> {
    for path in [path, &previous(path)] {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            read => read.map_err(FileError::io("read", path))?,
        };
        match unframe(&bytes, path) {
            Ok(Frame { mut content, .. }) => {
                for place in secrets {
                    if let Some(value) = content.pointer_mut(place) {
                        *value = Value::String(String::new());
                    }
                }
                if let Ok(found) = serde_json::from_value(content) {
                    return Ok(Some(found));
                }
            }
            Err(Refused::Fatal(error)) => return Err(error),
            Err(Refused::Damaged(_)) => {}
        }
    }
    Ok(None)
}

/// Writes a new generation.
pub(super) fn save<T: Serialize>(
    path: &Path,
    value: &T,
    secrets: &[&str],
    seal: Option<&Seal>,
) -> Result<(), StoreError> {
    let corrupt =
        |error: serde_json::Error| FileError::Corrupt { path: path.to_owned(), why: error.to_string() };
    let mut content = serde_json::to_value(value).map_err(corrupt)?;
    if let Some(seal) = seal {
        seal_places(&mut content, secrets, seal, path)?;
    }
    file::replace(path, &previous(path), &frame(content).map_err(corrupt)?)?;
    Ok(())
}

/// Where the generation before the newest is.
pub(super) fn previous(path: &Path) -> PathBuf {
    with_suffix(path, ".previous")
}

/// Seals what stands open in a file, in its place. What is damaged stays as it is, for [`load`] to find.
pub(super) fn reseal(path: &Path, secrets: &[&str], seal: &Seal) -> Result<(), StoreError> {
    let Some(bytes) = file::read(path)? else { return Ok(()) };
    let Ok(Frame { mut content, .. }) = unframe(&bytes, path) else { return Ok(()) };
    if seal_places(&mut content, secrets, seal, path)? {
        let corrupt =
            |error: serde_json::Error| FileError::Corrupt { path: path.to_owned(), why: error.to_string() };
        file::overwrite(path, &frame(content).map_err(corrupt)?)?;
        tracing::info!(path = %path.display(), "a private key that was stored open is sealed now");
    }
    Ok(())
}

/// Whether the seal is the one that sealed this store; the first seal of a store proves itself.
pub(super) fn prove(path: &Path, seal: Option<&Seal>) -> Result<(), StoreError> {
    let there = file::read(path)?;
    let Some(seal) = seal else {
        return there.map_or(Ok(()), |_| Err(StoreError::Sealed { path: path.to_owned() }));
    };
    let Some(there) = there else {
        let proof = seal
            .seal(PROOF.as_bytes(), PROOF)
            .ok_or_else(|| StoreError::Unsealable { path: path.to_owned() })?;
        let first = file::create(path, proof.as_bytes())?;
        return if first { Ok(()) } else { prove(path, Some(seal)) };
    };
    let opened = std::str::from_utf8(&there).ok().and_then(|proof| seal.open(proof, PROOF));
    if opened.as_deref() == Some(PROOF.as_bytes()) {
        Ok(())
    } else {
        Err(StoreError::WrongKey { path: path.to_owned() })
    }
}

fn generation<T: DeserializeOwned>(
    path: &Path,
    newest: &Path,
    secrets: &[&str],
    seal: Option<&Seal>,
) -> Result<Option<T>, Refused> {
    let Some(bytes) = file::read(path)? else { return Ok(None) };
    let Frame { mut content, .. } = unframe(&bytes, path)?;
    for place in secrets {
        if let Some(value) = content.pointer_mut(place) {
            open_place(value, place, seal, path, newest)?;
        }
    }
    serde_json::from_value(content).map(Some).map_err(|error| Refused::Damaged(error.to_string()))
}

fn frame(content: Value) -> Result<Vec<u8>, serde_json::Error> {
    let frame = Frame { version: VERSION, sha256: checksum(&content)?, content };
    let mut bytes = serde_json::to_vec_pretty(&frame)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn unframe(bytes: &[u8], path: &Path) -> Result<Frame, Refused> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let damaged = |error: serde_json::Error| Refused::Damaged(error.to_string());
    let Version { version } = serde_json::from_slice(bytes).map_err(damaged)?;
    if version > VERSION {
        return Err(Refused::Fatal(StoreError::Newer { path: path.to_owned(), version }));
    }
    let frame: Frame = serde_json::from_slice(bytes).map_err(damaged)?;
    if checksum(&frame.content).map_err(damaged)? != frame.sha256 {
        return Err(Refused::Damaged("its checksum does not match".into()));
    }
    Ok(frame)
}

fn checksum(content: &Value) -> Result<String, serde_json::Error> {
    let hash = digest(&SHA256, &serde_json::to_vec(content)?);
    Ok(hex(hash.as_ref()))
}

/// Whether anything was open until now.
fn seal_places(content: &mut Value, secrets: &[&str], seal: &Seal, path: &Path) -> Result<bool, StoreError> {
    let mut sealed = false;
    for place in secrets {
        let Some(value) =
            content.pointer_mut(place).filter(|value| !value.is_null() && value.get(SEALED).is_none())
        else {
            continue;
        };
        let text = seal.seal(value.to_string().as_bytes(), &context(path, place));
        let text = text.ok_or_else(|| StoreError::Unsealable { path: path.to_owned() })?;
        *value = serde_json::json!({ SEALED: text });
        sealed = true;
    }
    Ok(sealed)
}

fn open_place(
    value: &mut Value,
    place: &str,
    seal: Option<&Seal>,
    path: &Path,
    newest: &Path,
) -> Result<(), Refused> {
    let Some(text) = value.get(SEALED).and_then(Value::as_str) else { return Ok(()) };
    let Some(seal) = seal else { return Err(StoreError::Sealed { path: path.to_owned() }.into()) };
    let wrong = || StoreError::WrongKey { path: path.to_owned() };
    let plain = seal.open(text, &context(newest, place)).ok_or_else(wrong)?;
    *value = serde_json::from_slice(&plain).map_err(|error| Refused::Damaged(error.to_string()))?;
    Ok(())
}

/// A sealed key opens in its own record alone, in either generation.
fn context(path: &Path, place: &str) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    format!("{}#{place}", name.strip_suffix(".previous").unwrap_or(&name))
}

fn set_aside(path: &Path, newest: &Path, why: &str) -> Result<(), StoreError> {
    const FORM: &[time::format_description::BorrowedFormatItem<'_>] =
        format_description!("[year][month][day]T[hour][minute][second]Z");
    let at = OffsetDateTime::now_utc().format(FORM).unwrap_or_default();
    let aside = with_suffix(newest, &format!(".corrupt-{at}"));
    match fs::rename(path, &aside) {
        // Another edge was faster.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(FileError::io("set aside", path)(error).into()),
        Ok(()) => {
            let (path, aside) = (path.display(), aside.display());
            tracing::error!(%path, %aside, why, "a damaged record was set aside; the generation before it is used");
            Ok(())
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
