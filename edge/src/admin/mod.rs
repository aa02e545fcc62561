//! The control plane: what an operator and a workspace's people may see and change. Pure; the objects store it.

pub mod call;
pub mod config;
pub mod openapi;
pub mod problem;
pub mod roles;
pub mod schemas;
