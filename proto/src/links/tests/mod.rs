mod live;
mod node;
mod rings;
