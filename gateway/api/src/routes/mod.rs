//! What can be asked for, by path; the OpenAPI document is made of the same table.

mod document;
mod events;
mod gateway;
mod listing;
mod resources;
mod tokens;
mod tunnels;

pub use document::{Application, Exported};
pub(crate) use gateway::scrape;
pub use listing::Page;
pub use resources::{Changed, Deleted, Doomed, DoomedOne};
pub use tokens::{NewToken, SecretToken};

use crate::{auth::Noted, problem::Problem, server::Gateway};
use axum::{
    Extension, Json, Router,
    extract::DefaultBodyLimit,
    http::{Method, StatusCode, Uri},
};
use std::sync::LazyLock;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        ContentBuilder, Ref, RefOr, Response, ResponseBuilder,
        path::Operation,
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt},
    routes,
};

/// Octets of a body.
const BODY: usize = 1 << 20;
/// Octets of a body with a whole configuration: more than 10,000 tunnels.
const DOCUMENT: usize = 1 << 24;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Adit",
        description = "A site-to-site IPsec VPN gateway. Everything is served on a Unix socket to root, and over HTTPS to \
                       whoever shows a bearer token: one of the scope `read` for GET, of `write` for everything else, and \
                       of `reveal-secrets` for answers with pre-shared keys. Whatever is refused is answered with problem \
                       details (RFC 9457).",
        license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT"),
    ),
    components(schemas(Problem)),
    modifiers(&Common),
)]
struct Document;

/// What every operation has.
struct Common;

impl Modify for Common {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
        document.security = Some(vec![SecurityRequirement::new("token", Vec::<String>::new())]);
    }
}

fn routed() -> OpenApiRouter<Gateway> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(gateway::status))
        .routes(routes!(gateway::log))
        .routes(routes!(gateway::reload))
        .routes(routes!(events::follow))
        .routes(routes!(document::apply).layer(DefaultBodyLimit::max(DOCUMENT)))
        .routes(routes!(document::export))
        .routes(routes!(gateway::scrape))
        .routes(routes!(gateway::alarm_rules))
        .routes(routes!(gateway::openapi))
        .routes(routes!(tunnels::status))
        .routes(routes!(tunnels::log))
        .routes(routes!(tunnels::diagnosis))
        .routes(routes!(tunnels::peer_config))
        .routes(routes!(tunnels::up))
        .routes(routes!(tunnels::down))
        .routes(routes!(tunnels::rekey))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::delete))
        .merge(resources::routed())
}

/// Every route.
pub(crate) fn all() -> Router<Gateway> {
    let (router, _) = routed().split_for_parts();
    router.layer(DefaultBodyLimit::max(BODY)).fallback(not_found).method_not_allowed_fallback(not_allowed)
}

/// The OpenAPI 3.1 document.
pub fn openapi() -> &'static utoipa::openapi::OpenApi {
    static DOCUMENT: LazyLock<utoipa::openapi::OpenApi> = LazyLock::new(|| {
        let mut document = routed().into_openapi();
        for item in document.paths.paths.values_mut() {
            let operations =
                [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
            operations.into_iter().flatten().for_each(common_answers);
        }
        document
    });
    &DOCUMENT
}

/// The refusals that any operation may come to.
fn common_answers(operation: &mut Operation) {
    let refusals = [
        ("400", "The request is not understood."),
        ("401", "There is no token, or it is none."),
        ("403", "The token does not allow it."),
        ("408", "It took too long. A change that had begun by then is still made."),
        ("429", "Too many tokens from there were none."),
        ("500", "It cannot be read or kept: the disk refuses."),
        ("503", "The gateway stops."),
    ];
    for (code, words) in refusals {
        operation.responses.responses.entry(code.into()).or_insert_with(|| RefOr::T(refusal(words)));
    }
    if operation.request_body.is_some() {
        for (code, words) in [
            ("413", "The body is larger than 1 MiB."),
            ("415", "The body is not application/json."),
            ("422", "The body does not fit."),
        ] {
            operation.responses.responses.entry(code.into()).or_insert_with(|| RefOr::T(refusal(words)));
        }
    }
}

fn refusal(words: &str) -> Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(words).content(crate::problem::PROBLEM_JSON, content).build()
}

pub(crate) async fn not_found(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()))
}

async fn not_allowed(method: Method, uri: Uri) -> Problem {
    let words = format!("{method} is nothing that {} takes", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, words)
}

/// What comes of something that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Done {
    /// In words.
    pub done: String,
}

type Answer<T> = Result<Json<T>, Problem>;
/// An answer to what belongs into the gateway's log.
type NotedAnswer<T> = Result<(Extension<Noted>, Json<T>), Problem>;
