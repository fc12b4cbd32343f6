//! `adit token`: who may come from elsewhere.

use crate::{ask, cli::TokenCommand, print, table};
use adit_api::{Client, NewToken, Scope, Token};

/// Makes, shows or deletes tokens.
pub(crate) fn run(command: TokenCommand) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create { name, scopes, expires, access } => {
            let new = NewToken { name, scopes, lifetime: expires };
            let made = ask(access, async |client| client.create_token(&new).await)?;
            print(&made.token)
        }
        TokenCommand::List { shown, access } => {
            let header = ["TOKEN", "NAME", "SCOPES", "CREATED", "EXPIRES", "LAST USED"];
            let table = |tokens: &[Token]| table::fitted(&header, tokens.iter().map(row));
            shown.show("tokens", || ask(access, Client::tokens), table)
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
