// npm's bonjour-service as a peer:
//
//   node peer.js browse <type>
//   node peer.js publish <name> <type> <port> <key>=<value>...
//
// It writes a line of JSON for each service that comes or goes. A type is `_http._tcp`.
'use strict'
const { Bonjour } = require('bonjour-service')

const [does, ...words] = process.argv.slice(2)
const bare = (type) => type.replace(/^_/, '').replace(/\._tcp$/, '')
const tell = (event, of) => console.log(JSON.stringify({ event, ...of }))
const bonjour = new Bonjour()

if (does === 'browse') {
  const shown = (s) => ({
    name: s.name,
    port: s.port,
    addresses: s.addresses,
    txt: Object.entries(s.txt ?? {}).map(([key, value]) => `${key}=${value}`)
  })
  const browser = bonjour.find({ type: bare(words[0]) })
  browser.on('up', (service) => tell('added', shown(service)))
  browser.on('txt-update', (service) => tell('updated', shown(service)))
  browser.on('down', (service) => tell('removed', shown(service)))
} else {
  const [name, type, port, ...txt] = words
  const service = bonjour.publish({
    name,
    type: bare(type),
    port: Number(port),
    txt: Object.fromEntries(txt.map((pair) => pair.split('=')))
  })
  service.on('up', () => tell('ready', {}))
}
