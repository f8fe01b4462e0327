//! `vestibule man`, `completions` and `schema`: what the tables know, for the manual, the shell and an editor.

use std::io;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};

use super::{Cli, Failure, print};
use crate::config::schema::{self, Absent, Kind, Table};

/// What every page says it is from.
const SOURCE: &str = concat!("vestibule ", env!("CARGO_PKG_VERSION"));
/// The manual page of the configuration file.
const FILE: &str = "vestibule.toml";

/// `vestibule completions SHELL`
pub(super) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "vestibule", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// `vestibule schema`
pub(super) fn schema() -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(&schema::schema()).map_err(Failure::new)?;
    print(&(text + "\n"))
}

/// `vestibule man`
pub(super) fn man(page: Option<&str>, all: Option<&Path>) -> Result<(), Failure> {
    let pages = pages();
    if let Some(folder) = all {
        return write_all(folder, &pages)
            .map_err(|error| Failure::new(format_args!("{}: {error}", folder.display())));
    }
    let wanted = page.unwrap_or("vestibule");
    let is_wanted = |page: &&Page| page.name == wanted || page.name == format!("vestibule-{wanted}");
    if let Some(page) = pages.iter().find(is_wanted) {
        return print(&page.text);
    }
    let names: Vec<_> = pages.iter().map(|page| page.name.as_str()).collect();
    Err(Failure::new(format_args!("there is no page {wanted:?}; there are {}", names.join(", "))))
}

fn write_all(folder: &Path, pages: &[Page]) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let write =
        |page: &Page| std::fs::write(folder.join(format!("{}.{}", page.name, page.section)), &page.text);
    pages.iter().try_for_each(write)
}

/// A page of the manual.
struct Page {
    name: String,
    section: u8,
    text: String,
}

fn pages() -> Vec<Page> {
    let mut command = Cli::command();
    command.build();
    let mut pages = Vec::new();
    add(&command, "vestibule", &mut pages);
    pages.push(Page { name: FILE.into(), section: 5, text: file_page() });
    pages
}

/// The command's page, and those of the commands below it.
fn add(command: &Command, name: &str, pages: &mut Vec<Page>) {
    let mut text = Vec::new();
    let page = Man::new(command.clone()).source(SOURCE).manual("vestibule");
    // Writing to memory does not fail.
    let _ = page.render(&mut text);
    pages.push(Page { name: name.into(), section: 1, text: String::from_utf8_lossy(&text).into_owned() });
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        add(below, &format!("{name}-{}", below.get_name()), pages);
    }
}

fn file_page() -> String {
    let mut page = Roff::default();
    page.control("TH", [FILE, "5", "", SOURCE, "vestibule"]);
    page.control("SH", ["NAME"]).text([roman(format!("{FILE} - the configuration of vestibule"))]);
    page.control("SH", ["DESCRIPTION"]).text([roman(
        "The file is TOML. An unknown key, a wrong type or an impossible value is an error, and every error is told in one \
         run of vestibule-check(1). Durations are \"250ms\", \"30s\", \"10m\", \"12h\", \"90d\"; sizes are \"64KiB\", \
         \"10MiB\". What the edge reads is relative to the directory of the file; what it writes, to the working directory. \
         A secret is never written here: its place takes { file = … } or { env = … }.",
    )]);
    for table in schema::TABLES.iter().copied().filter(|table| !table.header.is_empty()) {
        describe(&mut page, table);
    }
    page.control("SH", ["SEE ALSO"]).text([roman("vestibule(1), vestibule-check(1), vestibule-serve(1)")]);
    page.to_roff()
}

fn describe(page: &mut Roff, table: &Table) {
    // A quote inside an argument would end it.
    page.control("SH", [table.header.replace('"', "\\(dq").as_str()])
        .text([roman(format!("{}.", table.doc))]);
    for key in table.keys.iter().filter(|key| !matches!(key.kind, Kind::Later(_))) {
        page.control("TP", []).text([bold(key.name), roman(" = "), italic(key.kind.expected())]);
        let absent = match key.absent {
            Absent::Wrong => " Needed.".to_owned(),
            Absent::Nothing => String::new(),
            Absent::Is(value) => format!(" Default: {value}."),
        };
        page.text([roman(format!("{}.{absent}", key.doc))]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_the_file_have_a_page() {
        let pages = pages();
        let has = |name: &str, section| pages.iter().any(|page| page.name == name && page.section == section);
        assert!(has("vestibule", 1) && has("vestibule-serve", 1) && has("vestibule-certs-list", 1));
        let file = pages.iter().find(|page| page.section == 5).unwrap();
        assert!(file.text.contains("handshake_timeout") && !file.text.contains("http3"), "{}", file.text);
        assert!(man(Some("nothing"), None).is_err());
    }

    #[test]
    fn every_shell_has_completions() {
        use clap::ValueEnum as _;
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "vestibule", &mut script);
            assert!(String::from_utf8_lossy(&script).contains("maintenance"), "{shell}");
        }
    }
}
