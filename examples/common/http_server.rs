//! A little HTTP server for the examples: it says the same whatever is asked.

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;

/// Answers every path with what `reply` says, for ever.
pub(crate) async fn serve(listener: TcpListener, reply: impl Fn() -> String + Clone + Send + Sync + 'static) {
    let router = Router::new().fallback(get(move || async move { reply() }));
    if let Err(error) = axum::serve(listener, router).await {
        eprintln!("the server ended: {error}");
    }
}
