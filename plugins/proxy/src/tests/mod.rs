//! The module over real sockets, with a core that only keeps a book.

mod agent;
mod book;
mod both;
mod credit;
mod ends;
mod near;
mod tunnel;
mod wire;
