//! `vestibule allow`: addresses that belong to a source for a while.

use std::fmt::Write as _;
use std::path::Path;

use super::edge::ask;
use super::{AllowArguments, Failure, Format, files, print, print_json};
use crate::addr::parse_cidr;
use crate::admin::leases::{LeaseStatus, LeaseWish, LeasesTold};
use crate::config::show_duration;
use crate::firewall::kernel::{self, NftError};
use crate::firewall::plan::Held;
use crate::firewall::{leases, switch};

/// Runs the command.
pub(super) fn run(arguments: &AllowArguments) -> Result<(), Failure> {
    let socket = files::socket(&arguments.edge)?;
    let wish = wish(arguments)?;
    if wish == LeaseWish::List {
        let told = asked(&socket, &wish)?;
        return match arguments.format {
            Format::Text => print(&table(&told.leases)),
            Format::Json => print_json(&told),
        };
    }
    refuse_half()?;
    // From the question to the kernel: else the list of an older command could be the last to get there.
    let _turn = switch::turn();
    let mut told = asked(&socket, &wish)?;
    if let Err(error) = kernel::sync_leases(&held(&told.leases)) {
        told.message += &without_kernel(error, &wish, &socket)?;
    }
    match arguments.format {
        Format::Text => print(&format!("{}\n", told.message)),
        Format::Json => print_json(&told),
    }
}

fn wish(arguments: &AllowArguments) -> Result<LeaseWish, Failure> {
    let (Some(source), Some(address)) = (&arguments.source, &arguments.address) else {
        return Ok(LeaseWish::List);
    };
    let network = parse_cidr(address).map_err(Failure::new)?;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if source.is_empty() || !source.bytes().all(legal) {
        return Err(Failure::new(format_args!("{source:?} cannot be the name of a source")));
    }
    let source = source.clone();
    if arguments.end {
        return Ok(LeaseWish::End { source, network });
    }
    let Some(span) = arguments.duration else {
        return Err(Failure::new("say for how long, as in --for 30m"));
    };
    leases::check(network, span.0).map_err(Failure::new)?;
    Ok(LeaseWish::Grant { source, network, duration: span.0 })
}

/// A lease is for the kernel's rules too, where they were applied, and those are root's to change.
fn refuse_half() -> Result<(), Failure> {
    if !nix::unistd::geteuid().is_root() && Path::new(switch::FOLDER).exists() {
        return Err(Failure::new(format_args!(
            "the kernel's rules were applied on this machine, and only root can change them: nothing was done, in the edge \
             neither. Run:\n    {}",
            as_root()
        )));
    }
    Ok(())
}

/// This very command, as root would type it.
fn as_root() -> String {
    let word = |word: String| {
        let plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./:=@".contains(&byte));
        if plain { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
    };
    std::iter::once("sudo".to_owned()).chain(std::env::args().map(word)).collect::<Vec<_>>().join(" ")
}

fn asked(socket: &Path, wish: &LeaseWish) -> Result<LeasesTold, Failure> {
    let (method, target) = wish.request();
    let told: LeasesTold = ask(socket, method, &target)?;
    if told.ok { Ok(told) } else { Err(Failure::new(told.message)) }
}

/// Where there is no nft, nothing was applied; where there is no right to use it, root alone knows, and this is what to tell. Else
/// the lease is taken back: it is whole or not at all.
fn without_kernel(error: NftError, wish: &LeaseWish, socket: &Path) -> Result<String, Failure> {
    match error {
        NftError::Missing | NftError::Unsupported(_) => return Ok(String::new()),
        NftError::NotPermitted => {
            return Ok(format!(
                "\nin the edge, that is: whether the kernel has rules of vestibule's too is for root to see. Where it has, run:\n    {}",
                as_root()
            ));
        }
        _ => {}
    }
    if let LeaseWish::Grant { source, network, .. } = wish {
        asked(socket, &LeaseWish::End { source: source.clone(), network: *network })?;
    }
    Err(Failure::new(error))
}

/// What the edge says, as a plan wants it.
pub(super) fn held(leases: &[LeaseStatus]) -> Vec<Held> {
    let held = |lease: &LeaseStatus| Held {
        source: lease.source.as_str().into(),
        network: lease.network,
        left: std::time::Duration::from_secs(lease.seconds_left),
    };
    leases.iter().map(held).collect()
}

fn table(leases: &[LeaseStatus]) -> String {
    if leases.is_empty() {
        return "no address belongs to a source by a lease\n".into();
    }
    let mut text = String::new();
    for lease in leases {
        let _ = writeln!(text, "{}", line(lease));
    }
    text
}

/// A lease in one line.
pub(super) fn line(lease: &LeaseStatus) -> String {
    let LeaseStatus { source, network, until, seconds_left } = lease;
    let left = show_duration(std::time::Duration::from_secs(*seconds_left));
    format!("{source} holds {network} until {until}, {left} more")
}
