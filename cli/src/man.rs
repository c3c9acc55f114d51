//! The manual pages.

use std::io;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use crate::args;
use crate::exit::{Failure, OS};

/// Writes a page for the command and one for each of its subcommands.
pub(crate) fn write(directory: &Path) -> Result<u8, Failure> {
    let mut command = args::command().disable_help_subcommand(true);
    command.build(); // names the subcommands as users type them
    let subcommands = command.get_subcommands().filter(|one| !one.is_hide_set());
    for command in subcommands.chain([&command]) {
        write_page(command, directory)
            .map_err(|error| Failure::new(OS, format_args!("{}: {error}", directory.display())))?;
    }
    Ok(0)
}

fn write_page(command: &Command, directory: &Path) -> io::Result<()> {
    let version = concat!("pglock ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).source(version).manual("pglock");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    synopsis_section(command).to_writer(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(notes) = command.get_after_long_help() {
        notes_section(&notes.to_string()).to_writer(&mut page)?;
    }
    std::fs::write(directory.join(man.get_filename()), page)
}

/// As in the help; clap_mangen's own lacks the `--` before a command and the values of options.
fn synopsis_section(command: &Command) -> Roff {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    let mut section = Roff::new();
    section.control("SH", ["SYNOPSIS"]).text([roman(usage)]);
    section
}

/// The end of the long help, with its line breaks, for its tables and examples.
fn notes_section(text: &str) -> Roff {
    let mut section = Roff::new();
    section.control("SH", ["NOTES"]).control("nf", []);
    for line in text.lines() {
        section.text([roman(line)]);
    }
    section.control("fi", []);
    section
}
