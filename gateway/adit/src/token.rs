//! `adit token`: who may come from elsewhere.

use crate::{
    ask,
    cli::{Format, TokenCommand},
    print, table,
};
use adit_api::{Client, NewToken, Scope, Token};

/// Makes, shows or deletes tokens.
pub(crate) fn run(command: TokenCommand) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create { name, scopes, expires, access } => {
            let new = NewToken { name, scopes, lifetime: expires };
            let made = ask(access, async |client| client.create_token(&new).await)?;
            print(&made.token)
        }
        TokenCommand::List { output, access } => {
            let tokens = ask(access, Client::tokens)?;
            print(&match output {
                Format::Json => serde_json::to_string_pretty(&tokens)?,
                Format::Table => table::fitted(
                    &["TOKEN", "NAME", "SCOPES", "CREATED", "EXPIRES", "LAST USED"],
                    tokens.iter().map(row),
                ),
            })
        }
        TokenCommand::Delete { which, access } => ask(access, async |client| {
            for token in &which {
                client.delete_token(token).await?;
            }
            Ok(())
        }),
    }
}

fn row(token: &Token) -> Vec<String> {
    let at = |time: Option<u64>, never: &str| time.map_or(never.to_owned(), table::utc);
    vec![
        token.id.clone(),
        token.name.clone(),
        token.scopes.iter().map(|scope| Scope::word(*scope)).collect::<Vec<_>>().join(","),
        table::utc(token.created_at),
        at(token.expires_at, "never"),
        at(token.last_used_at, "never"),
    ]
}
