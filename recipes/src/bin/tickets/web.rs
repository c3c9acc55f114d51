//! The shop on the web. pglock blocks, so each request that locks has a thread of its own.

use std::sync::Arc;

use anyhow::Result;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;

use crate::shop::{Answer, Shop};

/// Until Ctrl-C.
pub async fn serve(listener: TcpListener, shop: Arc<Shop>) -> Result<()> {
    let routes = Router::new()
        .route("/", get(|| async { Html(include_str!("page.html")) }))
        .route("/seats", get(seats))
        .route("/seats/{seat}/{buyer}", post(buy))
        .with_state(shop);
    let stop = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    Ok(axum::serve(listener, routes)
        .with_graceful_shutdown(stop)
        .await?)
}

async fn seats(State(shop): State<Arc<Shop>>) -> Response {
    respond(move || {
        let seats = shop.seats()?.into_iter();
        let seats = seats.map(|(name, buyer)| json!({ "name": name, "buyer": buyer }));
        Ok((StatusCode::OK, seats.collect()))
    })
    .await
}

async fn buy(
    State(shop): State<Arc<Shop>>,
    Path((seat, buyer)): Path<(String, String)>,
) -> Response {
    respond(move || {
        Ok(match shop.buy(&seat, &buyer)? {
            Answer::Sold => (StatusCode::OK, json!({ "buyer": buyer })),
            Answer::SoldTo(buyer) => (StatusCode::GONE, json!({ "buyer": buyer })),
            Answer::Busy(holder) => (StatusCode::CONFLICT, json!({ "holder": holder })),
            Answer::NoSuchSeat => (StatusCode::NOT_FOUND, json!({})),
        })
    })
    .await
}

async fn respond(work: impl FnOnce() -> Result<(StatusCode, Value)> + Send + 'static) -> Response {
    let failed = |error: anyhow::Error| {
        eprintln!("{error:#}");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    };
    match spawn_blocking(work).await {
        Ok(Ok((status, body))) => (status, Json(body)).into_response(),
        Ok(Err(error)) => failed(error),
        Err(panicked) => failed(panicked.into()),
    }
}
