export function between() { return () => {} }
