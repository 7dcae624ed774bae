// SPDX-FileCopyrightText: keyturn.rotation contributors
// SPDX-License-Identifier: GPL-3.0-or-later
//
// An OpenID provider whose signing keys are the rows of a table: `node server.mjs SETTINGS.json`.
// It signs with the newest row and publishes every row that is usable. An empty table gets a first key.

import {
  createCipheriv, createDecipheriv, generateKeyPairSync, randomBytes, randomUUID,
} from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

import { Provider } from 'oidc-provider';
import postgres from 'postgres';

const settings = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const sql = postgres({ ...settings.database, max: 1, onnotice: () => {} });

// -- cells: standard base64 of nonce, ciphertext and tag, AES-256-GCM ----------------------------------------------

const NONCE = 12;
const TAG = 16;

function encryptionKey() {
  const line = readFileSync(settings.env_file, 'utf8').split('\n').find((one) => one.startsWith('JWK_AES_KEY='));
  return Buffer.from(line.slice('JWK_AES_KEY='.length).replaceAll(/["']/g, ''), 'base64url');
}

function seal(text) {
  const nonce = randomBytes(NONCE);
  const cipher = createCipheriv('aes-256-gcm', encryptionKey(), nonce);
  return Buffer.concat([nonce, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()]).toString('base64');
}

function open(cell) {
  const raw = Buffer.from(cell, 'base64');
  const decipher = createDecipheriv('aes-256-gcm', encryptionKey(), raw.subarray(0, NONCE), { authTagLength: TAG });
  decipher.setAuthTag(raw.subarray(raw.length - TAG));
  return Buffer.concat([decipher.update(raw.subarray(NONCE, raw.length - TAG)), decipher.final()]).toString('utf8');
}

// -- the table -----------------------------------------------------------------------------------------------------

async function prepare() {
  await sql`
    CREATE TABLE IF NOT EXISTS jwks_keys (
      id uuid PRIMARY KEY, kid uuid NOT NULL UNIQUE, public_jwk jsonb, private_jwk text NOT NULL,
      created_at timestamptz NOT NULL DEFAULT now(), expires_at timestamptz)`;
  const [{ count }] = await sql`SELECT count(*)::int AS count FROM jwks_keys`;
  if (count) return;
  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const kid = randomUUID();
  const common = { alg: 'RS256', kid };
  const published = { ...common, ...publicKey.export({ format: 'jwk' }) };
  const hidden = seal(JSON.stringify({ ...common, ...privateKey.export({ format: 'jwk' }) }));
  await sql`
    INSERT INTO jwks_keys (id, kid, public_jwk, private_jwk)
    VALUES (${randomUUID()}, ${kid}, ${sql.json(published)}, ${hidden})`;
}

const usable = () => sql`
  SELECT kid::text, private_jwk FROM jwks_keys
  WHERE public_jwk IS NOT NULL AND (expires_at IS NULL OR expires_at > now())
  ORDER BY created_at DESC, kid`;

// -- the provider --------------------------------------------------------------------------------------------------

function provider(rows) {
  const keys = rows.map((row) => ({ ...JSON.parse(open(row.private_jwk)), kid: row.kid, use: 'sig' }));
  const made = new Provider(settings.issuer, {
    jwks: { keys },
    clients: [{
      client_id: settings.client_id,
      client_secret: settings.client_secret,
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    }],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => settings.audience,
        getResourceServerInfo: () => ({
          scope: 'api',
          audience: settings.audience,
          accessTokenFormat: 'jwt',
          accessTokenTTL: settings.token_lifetime,
          jwt: { sign: { alg: keys[0].alg, kid: keys[0].kid } },
        }),
      },
    },
  });
  made.use(async (ctx, next) => {
    await next();
    if (ctx.oidc?.route === 'jwks') ctx.set('Cache-Control', `public, max-age=${settings.max_age}`);
  });
  return made.callback();
}

let known = '';
let answer;

// Whoever is being answered is answered by the provider that they came to.
async function load() {
  const rows = await usable();
  const found = rows.map((row) => row.kid).join();
  if (found !== known) {
    answer = provider(rows);
    known = found;
  }
}

async function watch() {
  try {
    await load();
  } catch (error) {
    console.error(`keys: ${error.message}`);
  }
  setTimeout(watch, settings.watch_ms);
}

await prepare();
await load();
createServer((request, response) => answer(request, response)).listen(settings.port, '127.0.0.1', () => {
  console.log('ready');
  setTimeout(watch, settings.watch_ms);
});
