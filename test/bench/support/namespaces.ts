/** The n-th of many namespaces of depth 4. */
export const namespaceOf = (n: number): string => `/bench/${Math.floor(n / 1000)}/${Math.floor(n / 10) % 100}/${n % 10}`
