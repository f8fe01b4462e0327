//! The commands: one file each.

#![allow(
    clippy::doc_markdown,
    rustdoc::broken_intra_doc_links,
    reason = "the arguments' comments are their help, read in a terminal"
)]

mod allow;
mod certificates;
pub mod certs;
pub mod check;
mod connections;
mod edge;
mod explain;
mod files;
mod firewall;
mod maintenance;
mod manual;
mod matrix;
mod serve;
mod up;

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::admin::certificates::Wish;
use clap::{Args, Parser, Subcommand};

/// Runs the command that the process's arguments name. 0: done; 1: the answer is no; 2: what was asked or written is
/// wrong, and nothing has changed.
pub fn run() -> ExitCode {
    if let Some(failure) = unbuilt(std::env::args_os().nth(1).as_deref()) {
        return told(&failure);
    }
    let done = match Cli::parse().command {
        Command::Serve(config) => serve::run(config),
        Command::Up(arguments) => up::run(&arguments),
        Command::Check(config) => check::run(config),
        Command::Allow(arguments) => allow::run(&arguments),
        Command::Firewall(arguments) => firewall::run(arguments),
        Command::Reload(edge) => edge::reload(&edge),
        Command::Status { connections: true, format, edge } => connections::list(&edge, format),
        Command::Status { connections: false, format, edge } => edge::status(&edge, format),
        Command::Drain { upstream, undo, edge } => edge::drain(&upstream, undo, &edge),
        Command::Explain { id, edge, format } => explain::run(&id, &edge, format),
        Command::Maintenance { turn, site, edge } => maintenance::run(turn == Turn::On, &site, &edge),
        Command::Certs { command, list } => match command.unwrap_or(Certs::List(list)) {
            Certs::List(Listed { edge, format }) => certificates::list(&edge, format),
            Certs::Show(Named { name, edge }) => certificates::show(&name, &edge),
            Certs::Renew(Named { name, edge }) => certificates::wish(Wish::Renew, &name, &edge),
            Certs::Revoke(Named { name, edge }) => certificates::wish(Wish::Revoke, &name, &edge),
            Certs::Rekey(edge) => certificates::rekey(&edge),
            Certs::Trust(config) => certs::run(config),
        },
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { page, all } => manual::man(page.as_deref(), all.as_deref()),
        Command::Schema => manual::schema(),
    };
    done.map_or_else(|failure| told(&failure), |()| ExitCode::SUCCESS)
}

fn told(failure: &Failure) -> ExitCode {
    let _ = io::stderr().write_all(failure.text.as_bytes());
    ExitCode::from(failure.code)
}

/// What pages of ours name and this version has not.
fn unbuilt(command: Option<&OsStr>) -> Option<Failure> {
    let command = command?.to_str()?;
    ["audit", "import"]
        .contains(&command)
        .then(|| Failure::new(format_args!("vestibule {command} is not built into this version")))
}

/// The answer is no.
const NO: u8 = 1;
/// What was asked or written is wrong.
const WRONG: u8 = 2;

/// A TLS edge and reverse proxy for Django: one file says which names are served, on which ports, and who may
/// come in.
#[derive(Debug, Parser)]
#[command(name = "vestibule", version, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the edge, in the foreground, until it is told to leave
    ///
    /// TERM and INT finish the requests in flight, for as long as [process] grace says, and leave; a second one leaves at
    /// once. HUP reads the configuration again. USR1 opens the log files again. The log goes to standard error,
    /// access lines go where [log] access says.
    Serve(ConfigFile),
    /// Run an edge with no file, for development: one name, one upstream, a CA of its own
    ///
    /// Listens on this machine alone unless --public is given. Certificates are made by a CA of its own, kept in
    /// the user's data directory; what trusts it once trusts it for every later run.
    Up(UpArguments),
    /// Load everything that serve would, and bind nothing
    ///
    /// Prints the table of ports, who may come in at each, and the sites. Exits with 2, and every problem on
    /// standard error, where something is wrong.
    Check(ConfigFile),
    /// Let an address belong to a source for a while: a CI runner's door, open while it works
    ///
    /// `vestibule allow ci 198.51.100.7 --for 30m` gives a lease, and `--end` ends it; without more, lists them. The edge keeps
    /// leases over restarts, and ends them on time. Where the kernel's rules were applied, root opens them too; connections
    /// that a lease has let in stay when it ends.
    Allow(AllowArguments),
    /// The table of ports, for the host's own daemons and Docker's published ports too
    ///
    /// Without more, prints the table. `--format nft` prints it as a ruleset of nftables: one table, inet vestibule, and
    /// nothing else is touched. `--apply` gives it to the kernel, in one transaction; unless `--confirm` comes from another
    /// connection in time, the rules from before are put back. It rules what goes to an address of this machine, Docker's
    /// published ports among it; what goes on to other machines or between containers is left alone.
    Firewall(FirewallArguments),
    /// Have the running edge read its configuration again
    ///
    /// Takes the new configuration over as a whole or, with every problem on standard error and exit code 2, not at all.
    /// No connection is dropped.
    Reload(RunningEdge),
    /// Show the running edge: its process, its ports, its connections, its sites, its upstreams
    Status {
        /// List this process's open connections instead, the oldest first, a thousand at most
        #[arg(long)]
        connections: bool,
        #[command(flatten)]
        edge: RunningEdge,
        /// For a person, or for a program
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Give an upstream no new requests, as before it is taken down
    ///
    /// UPSTREAM is a target as the configuration has it, django-1:8000, or one address of one, as `vestibule status` shows
    /// them. What it has in progress it may finish; idle connections to it are closed. It stays out through reloads, until
    /// --undo or a restart of the edge.
    Drain {
        /// A target, or one of its addresses
        upstream: String,
        /// Give it requests again
        #[arg(long)]
        undo: bool,
        #[command(flatten)]
        edge: RunningEdge,
    },
    /// Tell what one request met: row, site, route, gates, upstream, tries, timings
    ///
    /// The running edge remembers the latest hundred thousand. Exits with 1 where the request is not among them.
    Explain {
        /// The id, as X-Request-ID, error pages and access lines have it
        #[arg(value_name = "REQUEST_ID")]
        id: String,
        #[command(flatten)]
        edge: RunningEdge,
        /// For a person, or for a program
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Put a site's maintenance page in its place, or serve the site again
    ///
    /// Every request to the site is answered with 503, but for those of [site.errors] maintenance_allow. It outlives reloads
    /// and restarts, until it is turned off.
    Maintenance {
        /// on or off
        #[arg(value_enum)]
        turn: Turn,
        /// One of the site's names
        site: String,
        #[command(flatten)]
        edge: RunningEdge,
    },
    /// What there is to know about certificates; without more, their list
    #[command(args_conflicts_with_subcommands = true)]
    Certs {
        #[command(subcommand)]
        command: Option<Certs>,
        #[command(flatten)]
        list: Listed,
    },
    /// Print what a shell needs to complete the commands
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print a page of the manual: vestibule(1), a command's, or vestibule.toml(5)
    Man {
        /// The page, as in serve, certs-list or vestibule.toml
        page: Option<String>,
        /// Write every page into this directory instead
        #[arg(long, value_name = "DIRECTORY", conflicts_with = "page")]
        all: Option<PathBuf>,
    },
    /// Print the JSON schema of the configuration file, for an editor
    Schema,
}

#[derive(Debug, Subcommand)]
enum Certs {
    /// List every certificate: names, issuer, expiry, when it is renewed and why, what failed
    ///
    /// Asks the running edge; where none runs, shows what the store of the configuration has.
    List(Listed),
    /// Show everything about the certificate for a name
    Show(Named),
    /// Have the running edge order a new certificate for a name, now
    Renew(Named),
    /// Have the CA revoke the certificate for a name, and order another
    Revoke(Named),
    /// Have the running edge give its account at every CA a new key, as after a backup was lost
    ///
    /// Certificates and their keys stay as they are. Without this, an account's key is changed once a year.
    Rekey(RunningEdge),
    /// Print where the root of the edge's own CA is, and how to make programs trust it
    Trust(ConfigFile),
}

/// Whether something is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Turn {
    On,
    Off,
}

/// All certificates.
#[derive(Debug, Args)]
struct Listed {
    #[command(flatten)]
    edge: RunningEdge,
    /// For a person, or for a program
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A certificate by one of its names.
#[derive(Debug, Args)]
struct Named {
    /// One of the names that it is for
    name: String,
    #[command(flatten)]
    edge: RunningEdge,
}

/// The file that a command reads.
#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration [default: config/vestibule.toml, then /etc/vestibule/vestibule.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What `firewall` does.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what"))]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag that people type")]
struct FirewallArguments {
    /// The configuration [default: config/vestibule.toml, then /etc/vestibule/vestibule.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What to print
    #[arg(long, value_enum, default_value_t = Form::Table)]
    format: Form,
    /// Give the ruleset to the kernel; needs root and nft
    #[arg(long, group = "what")]
    apply: bool,
    /// With --apply: how long the rules wait to be confirmed before they are taken back
    #[arg(long, value_name = "DURATION", default_value = "60s", requires = "apply")]
    within: Span,
    /// With --apply: even where the rules would keep out the SSH connection that this is typed in
    #[arg(long, requires = "apply")]
    force: bool,
    /// Keep the rules that were applied; counts from a connection that was opened since
    #[arg(long, group = "what")]
    confirm: bool,
    /// Compare the kernel's ruleset with this one; exit code 1 where they differ
    #[arg(long, group = "what")]
    diff: bool,
    /// Tell what an address would meet at each port, and why
    #[arg(long, value_name = "ADDRESS", group = "what")]
    probe: Option<Address>,
    /// The watcher of rules that wait to be confirmed
    #[arg(long, group = "what", hide = true)]
    watch: bool,
}

/// What `allow` does.
#[derive(Debug, Args)]
struct AllowArguments {
    /// A source of [sources]
    #[arg(requires = "address")]
    source: Option<String>,
    /// An address, or a network as in 2001:db8::/64
    address: Option<String>,
    /// For how long, up to 24h
    #[arg(long = "for", value_name = "DURATION", requires = "address", conflicts_with = "end")]
    duration: Option<Span>,
    /// End the lease
    #[arg(long, requires = "address")]
    end: bool,
    /// List the leases; the same as without a source
    #[arg(long, conflicts_with = "source")]
    list: bool,
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    edge: RunningEdge,
}

/// How the table is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// For a person
    Table,
    /// A ruleset, for `nft -f`
    Nft,
    /// For a program
    Json,
}

/// An address as an argument.
#[derive(Debug, Clone, Copy)]
struct Address(std::net::IpAddr);

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let net = crate::addr::parse_cidr(text).map_err(|error| error.to_string())?;
        if net.prefix_len() != net.max_prefix_len() {
            return Err("one address is probed, not a network".into());
        }
        Ok(Self(net.addr()))
    }
}

/// A duration as an argument, from a second to a day.
#[derive(Debug, Clone, Copy)]
struct Span(std::time::Duration);

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let duration = crate::config::read_duration(text)?;
        let bounds = std::time::Duration::from_secs(1)..=std::time::Duration::from_hours(24);
        if bounds.contains(&duration) { Ok(Self(duration)) } else { Err("write 1s to 24h".into()) }
    }
}

/// The edge that a command speaks to.
#[derive(Debug, Args)]
struct RunningEdge {
    /// Its socket [default: the [admin] socket of --config, then /run/vestibule/admin.sock; without root
    /// $XDG_RUNTIME_DIR/vestibule/admin.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The configuration that names its socket
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The form of what a command prints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

/// What `up` serves.
#[derive(Debug, Args)]
struct UpArguments {
    /// A name to serve; may be given more than once. Names under .localhost lead to this machine by themselves
    #[arg(long = "domain", value_name = "NAME", required = true)]
    domains: Vec<String>,
    /// The upstream: host:port, unix:/path or https://host:port
    #[arg(long, value_name = "TARGET")]
    to: String,
    /// The port that redirects to https [default: 80 as root, else 8080]
    #[arg(long, value_name = "PORT")]
    http: Option<u16>,
    /// The port of https [default: 443 as root, else 8443]
    #[arg(long, value_name = "PORT")]
    https: Option<u16>,
    /// Listen on every address of the machine
    #[arg(long)]
    public: bool,
    /// The socket for `vestibule status` and `reload` [default: up-PID.sock, where an edge's own would be, or
    /// in the user's data directory where there is no such place]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// Why a command failed, ready for standard error.
#[derive(Debug)]
struct Failure {
    text: String,
    code: u8,
}

impl Failure {
    /// One error, which gets its label.
    fn new(error: impl fmt::Display) -> Self {
        Self::wrong(format!("error: {error}\n"))
    }

    /// Something that is wrong, as whole lines.
    fn wrong(text: String) -> Self {
        Self { text, code: WRONG }
    }

    /// Not a mistake: the answer is no.
    fn no(answer: impl fmt::Display) -> Self {
        Self { text: format!("{answer}\n"), code: NO }
    }
}

impl From<crate::config::problem::Problems> for Failure {
    fn from(problems: crate::config::problem::Problems) -> Self {
        Self::wrong(problems.to_string())
    }
}

/// Prints what the edge answered as a program reads it.
fn print_json(answer: &impl serde::Serialize) -> Result<(), Failure> {
    print(&(serde_json::to_string_pretty(answer).map_err(Failure::new)? + "\n"))
}

/// Writes to standard output. A reader that has gone, as `head` does, is no error.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format_args!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
