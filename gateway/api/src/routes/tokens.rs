//! The bearer tokens.

use crate::{
    auth::{Caller, Noted, Scope, Token, TokenError},
    problem::{Body, Named, Problem},
    server::Gateway,
};
use axum::{
    Extension, Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;
use zeroize::Zeroizing;

/// A token to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What it is for: a name that no other has.
    #[schema(min_length = 1, max_length = 64, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    pub name: String,
    /// What it is to allow; nothing that who makes it may not do.
    #[schema(min_items = 1)]
    pub scopes: Vec<Scope>,
    /// After how many seconds it ends; without it, never. One that is made with a token ends with that at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 315360000)]
    pub lifetime: Option<u64>,
}

/// A token with what its holder shows. Nobody can see that again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretToken {
    /// What is known of it.
    #[serde(flatten)]
    pub about: Token,
    /// For `Authorization: Bearer …`.
    #[serde(with = "shown")]
    #[schema(value_type = String)]
    pub token: Zeroizing<String>,
}

mod shown {
    use super::Zeroizing;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(token: &Zeroizing<String>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(token)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Zeroizing<String>, D::Error> {
        String::deserialize(from).map(Zeroizing::new)
    }
}

impl fmt::Debug for SecretToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretToken").field("about", &self.about).finish_non_exhaustive()
    }
}

/// Every token, without its secret.
#[utoipa::path(get, path = "/v1/tokens", responses((status = 200, body = Vec<Token>)))]
pub(super) async fn list(State(gateway): State<Gateway>) -> Json<Vec<Token>> {
    Json(gateway.tokens.list())
}

/// Make a token.
#[utoipa::path(post, path = "/v1/tokens", request_body = NewToken,
    responses((status = 201, body = SecretToken, headers(("Location" = String, description = "The token."))),
        (status = 500, body = Problem, content_type = "application/problem+json",
            description = "It cannot be kept: no randomness, or no room on the disk.")))]
pub(super) async fn create(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Body(new): Body<NewToken>,
) -> Result<impl IntoResponse, Problem> {
    new.scopes.iter().try_for_each(|scope| caller.needs(*scope))?;
    let maker = caller.token.as_ref();
    let made = gateway.tokens.create(&new.name, &new.scopes, new.lifetime, maker).await;
    let (about, token) = made.map_err(failed)?;
    let scopes: Vec<&str> = about.scopes.iter().map(|scope| scope.word()).collect();
    let noted = Noted(format!("token {:?} made, with {}", about.name, scopes.join(", ")));
    let location = [(header::LOCATION, format!("/v1/tokens/{}", about.id))];
    Ok((StatusCode::CREATED, location, Extension(noted), Json(SecretToken { about, token })))
}

/// Delete a token by its number or its name, and whichever were made with it. From then on they open nothing, and a stream of
/// events that they opened ends. A token deletes none that has a scope more than itself.
#[utoipa::path(delete, path = "/v1/tokens/{name}",
    params(("name" = String, Path, description = "Its number or its name.")),
    responses((status = 204),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none."),
        (status = 500, body = Problem, content_type = "application/problem+json",
            description = "It is still there: no room on the disk.")))]
pub(super) async fn delete(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Named(which): Named,
) -> Result<impl IntoResponse, Problem> {
    let none = || Problem::new(StatusCode::NOT_FOUND, format!("there is no token {which:?}"));
    let token = gateway.tokens.find(&which).ok_or_else(none)?;
    // Whoever may do a little could shut everybody else out.
    token.scopes.iter().try_for_each(|scope| caller.needs(*scope))?;
    match gateway.tokens.delete(&token.id).await.map_err(failed)? {
        true => Ok((StatusCode::NO_CONTENT, Extension(Noted(format!("token {which:?} deleted"))))),
        false => Err(none()),
    }
}

fn failed(e: TokenError) -> Problem {
    let code = match e {
        TokenError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Problem::new(code, e.to_string())
}
