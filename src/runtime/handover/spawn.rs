//! Starting a program with descriptors of this process's from number 3 on, as `sd_listen_fds(3)` wants them. The standard
//! library can neither place descriptors nor tell a program its own number (`LISTEN_PID`).
#![allow(unsafe_code, reason = "fork(2) and execve(2)")]

use std::ffi::{CString, OsStr, OsString, c_char};
use std::io::{self, PipeWriter, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;

use nix::libc;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::net::inherit::FIRST;

/// Room for `LISTEN_PID=`, any process's number, and the end.
const PID_ROOM: usize = 32;
const PID_NAME: &[u8] = b"LISTEN_PID=";

/// Starts `program` with these arguments (its name first) and this environment, to which `LISTEN_PID` is added, with
/// copies of `handed` as descriptors 3, 4 and so on. Every other descriptor is as its own flag says. Returns once the
/// program runs.
///
/// # Errors
/// It does not; then no process is left.
pub(super) fn spawn(
    program: &Path,
    arguments: &[OsString],
    environment: &[(OsString, OsString)],
    handed: &[BorrowedFd<'_>],
) -> io::Result<Pid> {
    let program = c_string(program.as_os_str())?;
    let arguments = arguments.iter().map(|argument| c_string(argument)).collect::<io::Result<Vec<_>>>()?;
    let environment = environment.iter().map(variable).collect::<io::Result<Vec<_>>>()?;
    // Above all the numbers that are to be theirs, so that none is written over before it is copied.
    let floor = FIRST + RawFd::try_from(handed.len()).map_err(io::Error::other)?;
    let above = |descriptor: BorrowedFd<'_>| Ok(rustix::io::fcntl_dupfd_cloexec(descriptor, floor)?);
    let copies = handed.iter().map(|descriptor| above(*descriptor)).collect::<io::Result<Vec<OwnedFd>>>()?;
    let (mut report, lower) = io::pipe()?;
    let told = PipeWriter::from(above(lower.as_fd())?);
    drop(lower);
    let mut listen_pid = PID_NAME.to_vec();
    listen_pid.resize(PID_ROOM, 0);
    let own = listen_pid.as_ptr().cast::<c_char>();
    let mut image = Image {
        program: program.as_ptr(),
        arguments: pointers(&arguments, None),
        environment: pointers(&environment, Some(own)),
        listen_pid,
        copies: copies.iter().map(std::os::fd::AsRawFd::as_raw_fd).collect(),
        told: told.as_raw_fd(),
    };
    // SAFETY: the child runs nothing but `Image::run`, which calls only what signal-safety(7) lists.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: as above; everything that the image points at lives in the copy of this frame.
        0 => unsafe { image.run() },
        child => {
            drop(told);
            let mut errno = [0; 4];
            match report.read_exact(&mut errno) {
                Ok(()) => {
                    let _ = waitpid(Pid::from_raw(child), None);
                    Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno)))
                }
                Err(_) => Ok(Pid::from_raw(child)),
            }
        }
    }
}

/// All that the child needs, made before it exists: it may not allocate.
struct Image {
    program: *const c_char,
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    /// The environment points into it.
    listen_pid: Vec<u8>,
    copies: Vec<RawFd>,
    told: RawFd,
}

impl Image {
    /// # Safety
    /// Only for a child that was just forked.
    unsafe fn run(&mut self) -> ! {
        // SAFETY: signal-safe calls on memory that was made before the fork.
        unsafe {
            self.write_pid(libc::getpid());
            for (number, copy) in (FIRST..).zip(&self.copies) {
                if libc::dup2(*copy, number) < 0 {
                    self.fail();
                }
            }
            libc::execve(self.program, self.arguments.as_ptr(), self.environment.as_ptr());
            self.fail()
        }
    }

    fn write_pid(&mut self, pid: libc::pid_t) {
        let (mut digits, mut rest, mut count) = ([0_u8; 10], pid.unsigned_abs(), 0);
        for digit in &mut digits {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
            count += 1;
            if rest == 0 {
                break;
            }
        }
        let room = self.listen_pid.iter_mut().skip(PID_NAME.len());
        for (place, digit) in room.zip(digits.iter().take(count).rev()) {
            *place = *digit;
        }
    }

    /// # Safety
    /// Only for a child that was just forked.
    unsafe fn fail(&self) -> ! {
        // SAFETY: signal-safe calls; errno is this thread's own.
        unsafe {
            let errno = (*libc::__errno_location()).to_ne_bytes();
            libc::write(self.told, errno.as_ptr().cast(), errno.len());
            libc::_exit(127)
        }
    }
}

fn pointers(strings: &[CString], last: Option<*const c_char>) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain(last).chain([ptr::null()]).collect()
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(io::Error::other)
}

fn variable((name, value): &(OsString, OsString)) -> io::Result<CString> {
    c_string(&[name.as_os_str(), OsStr::new("="), value].into_iter().collect::<OsString>())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use nix::sys::wait::WaitStatus;

    use super::*;

    fn shell(script: &str, handed: &[BorrowedFd<'_>]) -> io::Result<Pid> {
        let arguments = ["sh", "-c", script].map(OsString::from);
        let environment = [("PATH".into(), std::env::var_os("PATH").unwrap()), ("A".into(), "b c".into())];
        spawn(Path::new("/bin/sh"), &arguments, &environment, handed)
    }

    #[test]
    fn descriptors_arrive_in_order_and_the_child_knows_its_number() {
        let (mut first, a) = io::pipe().unwrap();
        let (mut second, b) = io::pipe().unwrap();
        let script = "[ $LISTEN_PID = $$ ] && [ \"$A\" = 'b c' ] && echo one >&3 && echo two >&4";
        let pid = shell(script, &[a.as_fd(), b.as_fd()]).unwrap();
        drop((a, b));
        let mut said = [String::new(), String::new()];
        first.read_to_string(&mut said[0]).unwrap();
        second.read_to_string(&mut said[1]).unwrap();
        assert_eq!(said, ["one\n", "two\n"]);
        assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 0));
    }

    #[test]
    fn what_cannot_be_run_is_an_error_and_leaves_no_process() {
        let missing = spawn(Path::new("/no/such/program"), &[], &[], &[]).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"\x7fELF\x02\x01\x01\0another machine's").unwrap();
        let path = file.into_temp_path();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let foreign = spawn(&path, &["x".into()], &[], &[]).unwrap_err();
        assert_eq!(foreign.raw_os_error(), Some(libc::ENOEXEC));
    }
}
