export function formats() { return () => {} }
