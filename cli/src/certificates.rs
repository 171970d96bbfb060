//! `certificates`: one folder for a server and one for each client, of one authority.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use undertone_he::service::SERVER_NAME;
use undertone_tls::Authority;

use crate::render::say;
use crate::{Common, Outcome, render};

/// The authority's key is not kept: later clients need a new set.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The folder to make; it gets one folder for each participant.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The clients' names.
    #[arg(long = "client", value_name = "NAME", default_value = "client",
          value_parser = name)]
    clients: Vec<String>,
    #[command(flatten)]
    common: Common,
}

/// Names become folders and certificates.
fn name(text: &str) -> Result<String, String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if text.is_empty() || text.len() > 64 || !text.chars().all(fine) || text == "server" {
        return Err("letters, digits, - and _; not `server`".into());
    }
    Ok(text.into())
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let authority = Authority::new()?;
    let mut folders = vec![options.out.join("server")];
    authority.issue(SERVER_NAME)?.save(&folders[0])?;
    for client in &options.clients {
        let folder = options.out.join(client);
        authority.issue(client)?.save(&folder)?;
        folders.push(folder);
    }
    if options.common.json {
        render::json(&json!({ "folders": folders }))?;
    } else {
        for folder in folders {
            say!("{}", folder.display());
        }
    }
    Ok(Outcome::Good)
}
